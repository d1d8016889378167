"""What a run file names on this machine: prompts are read, and a model folder is looked at as the fetch stage would."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dynalign_contract.errors import StageError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.objective import BUILTIN, Objective, builtin_objective
from dynalign_contract.preflight import PreflightOrder, PreflightReport
from dynalign_contract.settings import columns_of_rewards
from dynalign_contract.supplied.amount import explain_shortage
from dynalign_contract.supplied.files import read_supplied
from dynalign_contract.training_choice import TrainingChoice
from dynalign_operator.cli.installed import HOW_TO_ADD
from dynalign_operator.planning.stage_configs import build_preflight
from dynalign_operator.runfile.problems import Problem
from dynalign_operator.runfile.run_file import RunFile, read_referenced_objective

_COMMAND: Final = (sys.executable, "-m", "dynalign_trainer.preflight")
_NEEDED: Final = ("dynalign_trainer", "torch", "transformers")
_TIMEOUT_SECONDS: Final = 600
_FIELD: Final = re.compile(r"spec(?:\.[a-zA-Z]+)+")
_MODEL: Final = ("spec", "model", "uri")


@dataclass
class FileChecks:
    """What was found, and what a person should know of what was not looked at."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    training: TrainingChoice | None = None
    """How the policy would be trained; None where the model was not looked at."""


def check_files(run_file: RunFile) -> FileChecks:
    """Check the files of a run file whose paths are resolved; those on claims and hubs are left to the fetch stage."""
    found = FileChecks()
    folder = Path(run_file.run.spec.model.uri)
    if folder.is_absolute() and _can_look():
        _check_model(run_file, folder, found)
        return found
    if folder.is_absolute():
        found.notes.append(
            f"the model was not looked at, for the stages are not installed here; to add them: {HOW_TO_ADD}"
        )
    _check_rows(run_file, found)
    return found


def _can_look() -> bool:
    return all(find_spec(name) is not None for name in _NEEDED)


def _check_model(run_file: RunFile, folder: Path, found: FileChecks) -> None:
    """Ask the trainer, in a process of its own: it imports what this one must not."""
    spec = run_file.run.spec
    order = PreflightOrder(
        model=str(folder),
        preflight=build_preflight(spec, find_objective(run_file)),
        engine=spec.engine,
        chat=spec.model.chat,
        quantized=spec.model.quantized,
    )
    try:
        done = subprocess.run(
            _COMMAND, input=order.to_json().encode(), capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        report = PreflightReport.model_validate_json(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValidationError) as error:
        found.notes.append(f"the model could not be looked at ({type(error).__name__}); the fetch stage will")
        _check_rows(run_file, found)
        return
    found.problems += [_place(run_file, finding.message, finding.exit_code) for finding in report.findings]
    found.notes += report.notes
    found.training = report.training


def find_objective(run_file: RunFile) -> Objective | None:
    """The run's objective; None where it stands in a ConfigMap outside the file."""
    named = run_file.run.spec.objective
    reference = named.config_map_ref
    if reference is None:
        return builtin_objective(named.builtin or BUILTIN[0])
    data = run_file.config_maps.get(reference.name)
    return None if data is None else read_referenced_objective(reference, data)


def _place(run_file: RunFile, message: str, exit_code: int) -> Problem:
    """A problem at the first line of the file that the message speaks of, else at the model's."""
    paths = [tuple(name.split(".")) for name in _FIELD.findall(message)]
    lines = [line for path in (*paths, _MODEL) if (line := run_file.lines.get(path)) is not None]
    return Problem(message, lines[0] if lines else None, ExitCode(exit_code))


def _check_rows(run_file: RunFile, found: FileChecks) -> None:
    """Read the files of prompts that lie on this machine, and count their rows."""
    prompts = run_file.run.spec.prompts
    named = {"supplied": prompts.supplied, "decontamination": prompts.decontamination}
    for name, part in named.items():
        if part is None or part.uri is None or not part.uri.startswith("/"):
            continue
        line = run_file.lines.get(("spec", "prompts", name, "uri"))
        try:
            columns = columns_of_rewards(run_file.run.spec.rewards) if name == "supplied" else ()
            file = read_supplied(Path(part.uri), f"spec.prompts.{name}", columns)
        except StageError as error:
            found.problems.append(Problem(str(error), line, ExitCode.BAD_INPUT))
            continue
        except ModuleNotFoundError as error:
            found.notes.append(f"{part.uri} was not read, for {error.name} is not installed here")
            continue
        found.notes += file.notes()
        if name == "supplied" and (text := explain_shortage(prompts, len(file.rows), file.path)) is not None:
            found.problems.append(Problem(text, run_file.lines.get(("spec", "prompts", "perIteration"), line)))
