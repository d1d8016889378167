"""The prompts of a run on this machine, as its agents left them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from dynalign_contract.errors import StageError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import DRAFTS_FILE, PROMPTS_FILE, YIELD_FILE, RunLayout
from dynalign_contract.manifest import read_manifest
from dynalign_contract.prompt_yield import PromptYields
from dynalign_contract.stages import Stage
from dynalign_operator.cli.installed import HOW_TO_ADD
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_contract.records import DraftRow, PromptRow


@dataclass(frozen=True)
class PromptArtifact:
    """What the prompts stage of one iteration wrote."""

    iteration: int
    yields: PromptYields
    prompts: "list[PromptRow]"
    """PROMPT rows of the training set."""
    drafts: "list[DraftRow]"
    """DRAFT rows, those of the held-out set included."""


def read_prompts(workdir: Path, iteration: int | None) -> PromptArtifact:
    """Prompts of an iteration, by default of the latest that has any. Exits with a sentence where there are none."""
    found = _finished(workdir)
    wanted = max(found, default=None) if iteration is None else iteration
    if wanted is None or wanted not in found:
        have = ", ".join(map(str, sorted(found))) or "none"
        which = "" if iteration is None else f" of iteration {iteration}"
        _exit(f"{workdir} has no finished prompts{which}; it has those of the iterations: {have}.")
    return _read(found[wanted], wanted)


def _finished(workdir: Path) -> dict[int, Path]:
    """Iteration -> folder of its prompts, where the manifest says that they are whole."""
    folders = {int(path.name): path for path in (workdir / "iterations").glob("[0-9]*") if path.name.isdecimal()}
    prompts = {index: RunLayout(workdir).stage(Stage.PROMPTS, index) for index in folders}
    try:
        return {index: folder for index, folder in prompts.items() if read_manifest(folder) is not None}
    except StageError as error:
        _exit(str(error))


def _read(folder: Path, iteration: int) -> PromptArtifact:
    try:
        from dynalign_contract.records import DRAFT, PROMPT, read_rows
    except ModuleNotFoundError as error:
        _exit(f"reading prompts needs {error.name}, which comes with the stages; to add them: {HOW_TO_ADD}")
    try:
        yields = PromptYields.model_validate_json((folder / YIELD_FILE).read_bytes())
        prompts, drafts = read_rows(folder / PROMPTS_FILE, PROMPT), read_rows(folder / DRAFTS_FILE, DRAFT)
    except StageError as error:
        _exit(str(error))
    except (OSError, ValueError) as error:
        _exit(f"{folder / YIELD_FILE} cannot be read ({error}). Remove the folder {folder} to have it made again.")
    return PromptArtifact(iteration, yields, prompts, drafts)


def _exit(sentence: str) -> NoReturn:
    say(sentence, err=True)
    raise typer.Exit(int(ExitCode.BAD_INPUT))
