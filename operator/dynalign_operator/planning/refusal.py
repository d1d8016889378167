"""The status of a run that cannot be carried on as it is, for reasons that the planner does not see."""

from collections.abc import Sequence
from datetime import datetime

from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase
from dynalign_operator.planning import reasons
from dynalign_operator.planning.conditions import Saying, set_conditions


def refuse(
    status: AlignmentRunStatus, generation: int, message: str, now: datetime, *, living: Sequence[str] = ()
) -> AlignmentRunStatus:
    """Build the status of an invalid run, with its errors; a corrected specification goes on.

    A run that has begun keeps its phase, and its Jobs (those that live are named) go on to their end: nothing is wrong
    with them, and an operator that is rolled back and forth ends no run. One that never began is failed.
    """
    has_begun = status.fetch is not None
    if has_begun:
        goes_on = f"{', '.join(living)} goes on to its end, and then the run waits" if living else "The run waits"
        message = f"{message} {goes_on} until that is mended, here or by an operator that takes it."
    reason = reasons.PENDING if has_begun else reasons.FAILED
    sayings = (
        Saying(ConditionType.READY, reasons.BAD_CONFIG, message, is_true=False),
        Saying(ConditionType.PROGRESSING, reason, message, is_true=False),
        Saying(ConditionType.STALLED, reasons.BAD_CONFIG, message, is_true=True),
    )
    update: dict[str, object] = {"conditions": set_conditions(status.conditions, sayings, generation, now)}
    if not has_begun:
        failed = {"phase": Phase.FAILED, "completion_time": status.completion_time or now}
        update |= {"observed_generation": generation, **failed}
    return status.model_copy(update=update)


def stall(status: AlignmentRunStatus, generation: int, reason: str, message: str, now: datetime) -> AlignmentRunStatus:
    """Of a run whose objects the cluster does not take: it is tried again, and the next success takes this back."""
    sayings = (
        Saying(ConditionType.READY, reason, message, is_true=False),
        Saying(ConditionType.PROGRESSING, reasons.PENDING, message, is_true=False),
        Saying(ConditionType.STALLED, reason, message, is_true=True),
    )
    conditions = set_conditions(status.conditions, sayings, generation, now)
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})
