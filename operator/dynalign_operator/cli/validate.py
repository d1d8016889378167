"""`dynalign validate`: is the run file right, and if not, what should it say instead."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_operator.cli.settings import Settings
from dynalign_operator.cli.terminal import count_of, print_json, say

if TYPE_CHECKING:
    from dynalign_contract.training_choice import TrainingChoice
    from dynalign_operator.api.v1alpha1 import AlignmentRun
    from dynalign_operator.cli.verdict import Verdict
    from dynalign_operator.runfile.run_file import RunFile


class ValidateOutput(StrEnum):
    """Formats of a verdict."""

    JSON = "json"


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Run files to check.", show_default=False)],
    settings: Settings = None,
    *,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what each run will take, as `dynalign estimate` does.")
    ] = False,
    output: Annotated[
        ValidateOutput | None,
        typer.Option("-o", "--output", help="Print everything in this format, a list.", show_default=False),
    ] = None,
) -> None:
    """Say what is wrong with run files, where, and what to write instead.

    A model folder and files of prompts on this machine are checked as the fetch stage checks them.

    Exit code 0: all are valid. 10: one is not.
    """
    import json

    from dynalign_contract.exit_codes import ExitCode
    from dynalign_operator.cli.verdict import reach_verdict

    verdicts = []
    for path in files:
        verdict, run_file = reach_verdict(path, tuple(settings or ()), estimate=estimate)
        verdicts.append(verdict)
        if output is None:
            _print(path, verdict, run_file)
    if output is ValidateOutput.JSON:
        print_json(json.dumps([json.loads(verdict.to_json()) for verdict in verdicts], indent=2))
    if not all(verdict.valid for verdict in verdicts):
        raise typer.Exit(ExitCode.BAD_CONFIG)


def _print(path: Path, verdict: "Verdict", run_file: "RunFile | None") -> None:
    from dynalign_operator.cli.estimate import headline

    for note in verdict.notes:
        say(f"{path}: note: {note}", err=True)
    for problem in verdict.problems:
        place = str(path) if problem.line is None else f"{path}:{problem.line}"
        say(f"{place}: {problem.text}", err=True)
    if run_file is None:
        return
    say(summarise(path, run_file, verdict.training))
    if verdict.estimate is not None:
        say(f"  estimate: {headline(run_file.run.metadata.name, verdict.estimate)}")
        for problem_of_size in verdict.estimate.problems:
            say(f"{path}: does not fit: {problem_of_size}", err=True)


def summarise(path: Path, run_file: "RunFile", training: "TrainingChoice | None" = None) -> str:
    """What the file asks for, in a few lines, and how its model would be trained where that is known."""
    from dynalign_contract.objective import BUILTIN

    run = run_file.run
    spec = run.spec
    reference = spec.objective.config_map_ref
    if reference is None:
        objective: str = spec.objective.builtin or BUILTIN[0]
    else:
        there = "" if reference.name in run_file.config_maps else ", which is not in this file and was not checked"
        objective = f"ConfigMap {reference.name}, key {reference.key}{there}"
    answers = spec.prompts.per_iteration * spec.generation.candidates
    workers = spec.training.nodes * spec.training.gpus_per_node
    text = (
        f"{path} is valid: {run.metadata.name} aligns {spec.model.uri}\n"
        f"  objective: {objective}\n"
        f"  work: {count_of(spec.iterations, 'iteration')} of {count_of(spec.prompts.per_iteration, 'prompt')} x "
        f"{count_of(spec.generation.candidates, 'candidate')} = {answers} answers; {spec.training.method} on "
        f"{count_of(workers, 'process', 'processes')}; {count_of(spec.prompts.held_out, 'held-out prompt')}"
    )
    lines = [text, *_describe_rollout(run)]
    return "\n".join([*lines, *(f"  training: {line}" for line in training.describe())] if training else lines)


def _describe_rollout(run: "AlignmentRun") -> list[str]:
    """Into which Jobs prompts, generate, judge and evaluate are put, and why."""
    from dynalign_operator.api.rollouts import choose_rollout

    choice = choose_rollout(run.spec)
    lines = [f"  rollout: {'Fused' if choice.is_fused else 'Separate'}: {choice.reason}"]
    if choice.is_fused and not choice.has_evaluation:
        lines.append("  evaluate has Jobs of its own, whose pods stages.evaluate describes")
    return lines
