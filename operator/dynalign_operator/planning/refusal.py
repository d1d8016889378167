"""The status of a run that cannot be carried on as it is, for reasons that the planner does not see."""

from collections.abc import Mapping
from datetime import datetime

from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.planning import reasons


def refuse(status: AlignmentRunStatus, generation: int, message: str, now: datetime) -> AlignmentRunStatus:
    """Of an object that is no valid run: failed, with what is wrong; a mended specification goes on."""
    said = {
        ConditionType.READY: ("False", reasons.BAD_CONFIG),
        ConditionType.PROGRESSING: ("False", reasons.FAILED),
        ConditionType.STALLED: ("True", reasons.BAD_CONFIG),
    }
    update = {
        "phase": Phase.FAILED,
        "observed_generation": generation,
        "completion_time": status.completion_time or now,
        "conditions": _changed(status, said, generation, message, now),
    }
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
