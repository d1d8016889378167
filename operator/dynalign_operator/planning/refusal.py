"""The status of a run that cannot be carried on as it is, for reasons that the planner does not see."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.planning import reasons


def refuse(
    status: AlignmentRunStatus, generation: int, message: str, now: datetime, *, living: Sequence[str] = ()
) -> AlignmentRunStatus:
    """Of an object that is no valid run, with what is wrong; a mended specification goes on.

    A run that has begun keeps its phase, and its Jobs (those that live are named) go on to their end: nothing is wrong
    with them, and an operator that is rolled back and forth ends no run. One that never began is failed.
    """
    has_begun = status.fetch is not None
    if has_begun:
        goes_on = f"{', '.join(living)} goes on to its end, and then the run waits" if living else "The run waits"
        message = f"{message} {goes_on} until that is mended, here or by an operator that takes it."
    reason = reasons.PENDING if has_begun else reasons.FAILED
    said = {
        ConditionType.READY: ("False", reasons.BAD_CONFIG),
        ConditionType.PROGRESSING: ("False", reason),
        ConditionType.STALLED: ("True", reasons.BAD_CONFIG),
    }
    update: dict[str, object] = {"conditions": _changed(status, said, generation, message, now)}
    if not has_begun:
        failed = {"phase": Phase.FAILED, "completion_time": status.completion_time or now}
        update |= {"observed_generation": generation, **failed}
    return status.model_copy(update=update)


def stall(status: AlignmentRunStatus, generation: int, reason: str, message: str, now: datetime) -> AlignmentRunStatus:
    """Of a run whose objects the cluster does not take: it is tried again, and the next success takes this back."""
    said = {
        ConditionType.READY: ("False", reason),
        ConditionType.PROGRESSING: ("False", reasons.PENDING),
        ConditionType.STALLED: ("True", reason),
    }
    conditions = _changed(status, said, generation, message, now)
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _changed(
    status: AlignmentRunStatus,
    said: Mapping[ConditionType, tuple[str, str]],
    generation: int,
    message: str,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions, these changed; a transition time changes with the status alone."""
    before = {condition.type: condition for condition in status.conditions}
    after = dict(before)
    for kind, (value, reason) in said.items():
        same = kind in before and before[kind].status == value
        after[kind] = Condition(
            type=kind,
            status=value,
            reason=reason,
            message=message[:32_768],
            last_transition_time=before[kind].last_transition_time if same else now,
            observed_generation=generation,
        )
    return tuple(after.values())
