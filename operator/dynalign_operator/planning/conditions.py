"""Writing conditions: the one place that knows when a transition time changes and how long a message may be."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dynalign_operator.api.status import Condition, ConditionType

_LONGEST_MESSAGE: Final = 32_768
"""Characters that Kubernetes takes."""


@dataclass(frozen=True)
class Saying:
    """New content of one condition."""

    type: ConditionType
    reason: str
    message: str
    is_true: bool


def set_condition(
    conditions: Iterable[Condition], saying: Saying, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions with this one set; its transition time changes with its status alone, its place never."""
    before = {condition.type: condition for condition in conditions}
    status = "True" if saying.is_true else "False"
    known = before.get(saying.type)
    unchanged = known is not None and known.status == status
    before[saying.type] = Condition(
        type=saying.type,
        status=status,
        reason=saying.reason,
        message=saying.message[:_LONGEST_MESSAGE],
        last_transition_time=known.last_transition_time if known is not None and unchanged else now,
        observed_generation=generation,
    )
    return tuple(before.values())


def set_conditions(
    conditions: Iterable[Condition], sayings: Iterable[Saying], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions with several of them set, one after the other."""
    result = tuple(conditions)
    for saying in sayings:
        result = set_condition(result, saying, generation, now)
    return result
