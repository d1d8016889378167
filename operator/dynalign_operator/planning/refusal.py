"""The status of a run that the API server has let in although it is none."""

from datetime import datetime

from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.planning import reasons


def refuse(status: AlignmentRunStatus, generation: int, message: str, now: datetime) -> AlignmentRunStatus:
    """Failed and Stalled, with what is wrong; the run goes on when its specification is mended (a new generation)."""
    said = {
        ConditionType.READY: ("False", reasons.BAD_CONFIG),
        ConditionType.PROGRESSING: ("False", reasons.FAILED),
        ConditionType.STALLED: ("True", reasons.BAD_CONFIG),
    }
    before = {condition.type: condition for condition in status.conditions}
    conditions = {
        **before,
        **{
            kind: Condition(
                type=kind,
                status=value,
                reason=reason,
                message=message,
                last_transition_time=before[kind].last_transition_time
                if kind in before and before[kind].status == value
                else now,
                observed_generation=generation,
            )
            for kind, (value, reason) in said.items()
        },
    }
    return status.model_copy(
        update={
            "phase": Phase.FAILED,
            "observed_generation": generation,
            "completion_time": status.completion_time or now,
            "conditions": tuple(conditions.values()),
        }
    )
