"""What `dynalign validate` finds out about one run file, as a value; `-o json` prints it."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.training_choice import TrainingChoice
from dynalign_operator.cli.check_files import check_files, find_objective
from dynalign_operator.cli.estimate import default_hardware, shape_of_model
from dynalign_operator.cli.load import load_run_file
from dynalign_operator.estimate.run_estimate import RunEstimate, estimate_run
from dynalign_operator.planning.budget import budget_note
from dynalign_operator.runfile.problems import Problem
from dynalign_operator.runfile.run_file import RunFile, RunFileError


class FoundProblem(Model):
    """One error of a run file."""

    text: str
    """A sentence that begins with the field."""
    line: int | None = None
    """Line of the file, from 1; absent where the place is not known."""
    exit_code: ExitCode = ExitCode.BAD_CONFIG


class Verdict(Model):
    """Whether a run file is valid, and what a person should know of it."""

    file: str
    valid: bool
    name: str | None = None
    """Name of the run; absent where the file cannot be read as one."""
    problems: tuple[FoundProblem, ...] = ()
    notes: tuple[str, ...] = ()
    training: TrainingChoice | None = None
    """How the policy would be trained; absent where the model was not looked at."""
    estimate: RunEstimate | None = Field(default=None, exclude_if=lambda estimate: estimate is None)
    """What the run will take; absent unless it was asked for and the model's sizes are known."""


def reach_verdict(path: Path, settings: tuple[str, ...], *, estimate: bool) -> tuple[Verdict, RunFile | None]:
    """Look at a run file and the files that it names; the run file is None where it is not valid."""
    notes: list[str] = []
    try:
        run_file = load_run_file(path, settings)
    except RunFileError as error:
        return _refused(path, error.problems, notes), None
    notes += [f"{note}." for note in run_file.notes]
    found = check_files(run_file)
    notes += found.notes
    if note := budget_note(run_file.run):
        notes.append(note)
    if found.problems:
        return _refused(path, found.problems, notes), None
    taken = _estimate(run_file, notes) if estimate else None
    verdict = Verdict(
        file=str(path),
        valid=True,
        name=run_file.run.metadata.name,
        notes=tuple(notes),
        training=found.training,
        estimate=taken,
    )
    return verdict, run_file


def _refused(path: Path, problems: Iterable[Problem], notes: Iterable[str]) -> Verdict:
    found = tuple(FoundProblem(text=p.text, line=p.line, exit_code=p.exit_code) for p in problems)
    return Verdict(file=str(path), valid=False, problems=found, notes=tuple(notes))


def _estimate(run_file: RunFile, notes: list[str]) -> RunEstimate | None:
    """The estimate; None where the model's sizes are not known, which is noted."""
    spec = run_file.run.spec
    try:
        shape = shape_of_model(spec.model.uri, None)
    except (OSError, ValueError) as error:
        notes.append(f"not estimated: {error}. `dynalign estimate FILE --model-config config.json` does")
        return None
    return estimate_run(spec, find_objective(run_file), shape, default_hardware(run_file))
