"""`dynalign validate`: is the run file right, and if not, what should it say instead."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_operator.cli.settings import Settings
from dynalign_operator.cli.terminal import count_of, say

if TYPE_CHECKING:
    from dynalign_contract.training_choice import TrainingChoice
    from dynalign_operator.api.v1alpha1 import AlignmentRun
    from dynalign_operator.runfile.run_file import RunFile


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Run files to check.", show_default=False)],
    settings: Settings = None,
) -> None:
    """Say what is wrong with run files, where, and what to write instead.

    A model folder and files of prompts on this machine are checked as the fetch stage checks them.

    Exit code 0: all are valid. 10: one is not.
    """
    from dynalign_contract.exit_codes import ExitCode
    from dynalign_operator.cli.load import load_run_file
    from dynalign_operator.cli.report_problems import report_notes, report_problems
    from dynalign_operator.runfile.run_file import RunFileError

    valid = True
    for path in files:
        try:
            run_file = report_notes(path, load_run_file(path, settings or ()))
            training = _look_at_files(path, run_file)
            say(summarise(path, run_file, training))
        except RunFileError as error:
            report_problems(path, error)
            valid = False
    if not valid:
        raise typer.Exit(ExitCode.BAD_CONFIG)


def _look_at_files(path: Path, run_file: "RunFile") -> "TrainingChoice | None":
    """Look at the model folder and the prompts that lie on this machine; returns how that model would be trained.

    Raises RunFileError.
    """
    from dynalign_operator.cli.check_files import check_files
    from dynalign_operator.planning.budget import budget_note
    from dynalign_operator.runfile.run_file import RunFileError

    found = check_files(run_file)
    budget = budget_note(run_file.run)
    for note in (*found.notes, *([budget] if budget else ())):
        say(f"{path}: note: {note}", err=True)
    if found.problems:
        raise RunFileError(found.problems)
    return found.training


def summarise(path: Path, run_file: "RunFile", training: "TrainingChoice | None" = None) -> str:
    """What the file asks for, in three lines, and how its model would be trained where that is known."""
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
    """Into which Jobs prompts, generate and judge are put, where that is not one for each by default."""
    from dynalign_operator.api.v1alpha1 import Rollout
    from dynalign_operator.planning.rollouts import choose_rollout

    if run.spec.rollout is Rollout.SEPARATE:
        return []
    choice = choose_rollout(run.spec)
    return [f"  rollout: {'Fused' if choice.is_fused else 'Separate'}: {choice.reason}"]
