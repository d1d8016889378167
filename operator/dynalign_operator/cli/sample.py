"""What a person looks at before an approval: a few of the artifact's own rows, for a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table

from dynalign_contract.errors import StageError
from dynalign_contract.layout import RunLayout
from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import AwaitedApproval, Gate
from dynalign_operator.cli.before_after import before_after, clip, read_changes
from dynalign_operator.cli.terminal import as_text, styled

if TYPE_CHECKING:
    from dynalign_report.facts import Candidate, Group

_SHOWN: Final = 3
"""Prompts that are shown."""
_QUESTION_LENGTH: Final = 200
_ANSWER_LENGTH: Final = 320
_TEXT_WIDTH: Final = 100


def read_sample(folder: Path, awaited: AwaitedApproval) -> RenderableType | None:
    """A sample of what is to be approved; None where it cannot be read: nothing fails for want of examples."""
    if awaited.gate is Gate.BEFORE_EXPORT:
        changes = read_changes(folder, awaited.iteration)
        return None if changes is None else before_after(changes)
    try:
        from dynalign_report.groups import read_groups
        from dynalign_report.stage_facts import artifact_parts

        layout, iteration = RunLayout(folder), awaited.iteration
        rollouts, judgements = (layout.stage(stage, iteration) for stage in (Stage.GENERATE, Stage.JUDGE))
        groups = read_groups(artifact_parts(rollouts), artifact_parts(judgements), layout.batch(iteration))
    except (ModuleNotFoundError, OSError, StageError):
        return None
    return judged_answers(groups, iteration) if groups else None


def sample_text(folder: Path, awaited: AwaitedApproval) -> str:
    """The sample as plain text of 100 columns; empty where it cannot be read."""
    sample = read_sample(folder, awaited)
    return "" if sample is None else as_text(sample, _TEXT_WIDTH)


def judged_answers(groups: "Sequence[Group]", iteration: int) -> RenderableType:
    """The first prompts of an iteration, each with its answers of the highest and the lowest reward."""
    count = min(_SHOWN, len(groups))
    parts: list[RenderableType] = [
        styled(f"Judged answers of iteration {iteration}: the first {count} of {len(groups)} prompts:")
    ]
    for group in groups[:count]:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        question = clip(group.messages[-1][1] if group.messages else "", _QUESTION_LENGTH)
        grid.add_row(styled("prompt", style="dim"), styled(question, style="bold"))
        for label, found in _extremes(group):
            reward = "no reward" if found.reward is None else f"{found.reward:.3f}"
            text = clip(found.text, _ANSWER_LENGTH, is_cut=found.truncated)
            grid.add_row(styled(f"{label} {reward}", style="dim"), styled(text))
        parts += ["", grid]
    return Lines(*parts)


def _extremes(group: "Group") -> "list[tuple[str, Candidate]]":
    """The candidates with the highest and the lowest reward; one alone where there is no other."""
    ordered = sorted(group.candidates, key=lambda found: -1.0 if found.reward is None else found.reward)
    if not ordered:
        return []
    return [("best", ordered[-1]), ("worst", ordered[0])] if len(ordered) > 1 else [("only", ordered[0])]
