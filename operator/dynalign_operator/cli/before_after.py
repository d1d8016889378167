"""Held-out questions with the base model's answer and the policy's: what a run has changed, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table

from dynalign_contract.config import BASE_POLICY, policy_version
from dynalign_contract.errors import StageError
from dynalign_contract.layout import ANSWERS_FILE, RunLayout
from dynalign_contract.plain_text import plain_line
from dynalign_contract.stages import Stage
from dynalign_operator.cli.terminal import styled

if TYPE_CHECKING:
    from dynalign_contract.records import AnswerRow

SHOWN: Final = 3
"""Questions that are shown."""
CUT: Final = " [...]"
"""Stands where a text was cut, here or at its maximum length when it was written."""
_QUESTION_LENGTH: Final = 200
_ANSWER_LENGTH: Final = 320


@dataclass(frozen=True)
class BeforeAfter:
    """A held-out question and its two answers, each on one line that is safe to print."""

    question: str
    before: str
    after: str


@dataclass(frozen=True)
class Changes:
    """The answers of an iteration's policy beside the base model's."""

    iteration: int
    questions: int
    """Held-out questions."""
    changed: list[BeforeAfter]
    """Questions that the two policies answer differently, in the order of the prompts."""


def read_changes(workdir: Path, iteration: int) -> Changes | None:
    """The answers of an evaluation; None where they cannot be read: a summary does not fail for want of examples."""
    try:
        from dynalign_contract.records import ANSWER, read_rows

        rows = read_rows(RunLayout(workdir).stage(Stage.EVALUATE, iteration) / ANSWERS_FILE, ANSWER)
    except (ModuleNotFoundError, OSError, StageError):
        return None
    return find_changes(rows, iteration)


def find_changes(rows: "Sequence[AnswerRow]", iteration: int) -> Changes:
    """Compare the answers of the iteration's policy with the base model's, prompt by prompt."""
    before = {row["prompt_id"]: row for row in rows if row["policy"] == BASE_POLICY}
    after = [row for row in rows if row["policy"] == policy_version(iteration) and row["prompt_id"] in before]
    pairs = [(before[row["prompt_id"]], row) for row in after]
    changed = [
        BeforeAfter(clip(new["messages"][-1]["content"], _QUESTION_LENGTH), _answer(old), _answer(new))
        for old, new in pairs
        if old["text"] != new["text"]
    ]
    return Changes(iteration, len(pairs), changed)


def before_after(changes: Changes) -> Group:
    """The first questions whose answers changed, not chosen by how they came out."""
    count = min(SHOWN, len(changes.changed))
    if not count:
        return Group(f"None of the {changes.questions} held-out answers changed in iteration {changes.iteration}.")
    which = "the only one" if len(changes.changed) == 1 else f"the first {count}"
    parts: list[RenderableType] = [
        styled(f"Before and after: {len(changes.changed)} of {changes.questions} held-out answers changed; {which}:")
    ]
    for pair in changes.changed[:count]:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text, style in (
            ("question", pair.question, "bold"),
            ("before", pair.before, ""),
            ("after", pair.after, ""),
        ):
            grid.add_row(styled(label, style="dim"), styled(text, style=style))
        parts += ["", grid]
    return Group(*parts)


def clip(text: str, length: int, *, is_cut: bool = False) -> str:
    """The text on one line without hidden characters, at most `length` characters and a mark where it was cut."""
    line = " ".join(plain_line(text).split())
    if not line:
        return "(empty)"
    if len(line) <= length:
        return line + CUT if is_cut else line
    kept = line[:length].rsplit(" ", 1)[0] if " " in line[length // 2 : length] else line[:length]
    return kept + CUT


def _answer(row: "AnswerRow") -> str:
    return clip(row["text"], _ANSWER_LENGTH, is_cut=row["finish_reason"] == "length")
