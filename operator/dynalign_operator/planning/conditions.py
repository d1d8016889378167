"""Writing conditions: the one place that knows when a transition time changes and how long a message may be."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dynalign_operator.api.approvals import Decision
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import GateView, describe_decision, explain_wait_for_approval
from dynalign_operator.planning.stored_run import Blocker

_LONGEST_MESSAGE: Final = 32_768
"""Characters that Kubernetes takes."""


@dataclass(frozen=True)
class ConditionUpdate:
    """New content of one condition."""

    type: ConditionType
    reason: str
    message: str
    is_true: bool


def set_condition(
    conditions: Iterable[Condition], update: ConditionUpdate, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions with this one set; its transition time changes with its status alone, its place never."""
    before = {condition.type: condition for condition in conditions}
    status = "True" if update.is_true else "False"
    known = before.get(update.type)
    unchanged = known is not None and known.status == status
    before[update.type] = Condition(
        type=update.type,
        status=status,
        reason=update.reason,
        message=update.message[:_LONGEST_MESSAGE],
        last_transition_time=known.last_transition_time if known is not None and unchanged else now,
        observed_generation=generation,
    )
    return tuple(before.values())


def set_conditions(
    conditions: Iterable[Condition], updates: Iterable[ConditionUpdate], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions with several of them set, one after the other."""
    result = tuple(conditions)
    for update in updates:
        result = set_condition(result, update, generation, now)
    return result


def stalled(blocker: Blocker | None, *, is_awaiting: bool = False) -> ConditionUpdate:
    """The Stalled condition: True, with the remedy, while something blocks the run; a person's approval does not."""
    if blocker is None:
        message = "Nothing is wrong; see the condition Approved." if is_awaiting else "No action is needed."
        return ConditionUpdate(ConditionType.STALLED, reasons.ON_TRACK, message, is_true=False)
    return ConditionUpdate(ConditionType.STALLED, blocker.reason, blocker.message, is_true=True)


def approved(view: GateView | None, status: AlignmentRunStatus, blocker: Blocker | None) -> ConditionUpdate:
    """The Approved condition: False while the run waits for a person, or after a refusal."""
    kind = ConditionType.APPROVED
    if view is not None:
        return ConditionUpdate(kind, reasons.AWAITING_APPROVAL, explain_wait_for_approval(view), is_true=False)
    if blocker is not None and blocker.reason == reasons.REJECTED:
        return ConditionUpdate(kind, reasons.REJECTED, blocker.message, is_true=False)
    if status.approvals and status.approvals[-1].decision is Decision.APPROVED:
        return ConditionUpdate(kind, reasons.APPROVED, describe_decision(status.approvals[-1]), is_true=True)
    return ConditionUpdate(kind, reasons.NO_APPROVAL_AWAITED, "No stage waits for a person.", is_true=True)


def completed(phase: Phase) -> ConditionUpdate:
    """The Completed condition: True once the run has exported its model."""
    if phase is Phase.SUCCEEDED:
        message = "The run is complete and its model is exported."
        return ConditionUpdate(ConditionType.COMPLETED, reasons.SUCCEEDED, message, is_true=True)
    message = "The run has not exported its model yet."
    return ConditionUpdate(ConditionType.COMPLETED, reasons.NOT_FINISHED, message, is_true=False)
