"""Conditions have one writer: times change with the status alone, whoever wrote them before."""

from datetime import timedelta

from dynalign_operator.api.status import Condition, ConditionType
from dynalign_operator.planning.blocked import blocked_status
from dynalign_operator.planning.conditions import ConditionUpdate, set_condition
from dynalign_operator.planning.stored_run import BlockedRun, Blocker, StoredRun
from support.builders import T0, a_run
from support.simulation import Simulation, succeed

LATER = T0 + timedelta(hours=1)


def saying(*, is_true: bool, message: str = "m", reason: str = "R") -> ConditionUpdate:
    return ConditionUpdate(ConditionType.STALLED, reason, message, is_true=is_true)


def test_the_time_is_that_of_the_last_change_of_the_status() -> None:
    (first,) = set_condition((), saying(is_true=True), 1, T0)
    (same,) = set_condition((first,), saying(is_true=True, message="other", reason="Other"), 2, LATER)
    assert (same.last_transition_time, same.message, same.reason, same.observed_generation) == (T0, "other", "Other", 2)
    (changed,) = set_condition((same,), saying(is_true=False), 2, LATER)
    assert (changed.last_transition_time, changed.status) == (LATER, "False")


def test_others_stay_where_and_as_they_are() -> None:
    conditions: tuple[Condition, ...] = ()
    for kind in (ConditionType.READY, ConditionType.STALLED, ConditionType.DEGRADED):
        conditions = set_condition(conditions, ConditionUpdate(kind, "R", "m", is_true=False), 1, T0)
    after = set_condition(conditions, saying(is_true=True), 1, LATER)
    assert [condition.type for condition in after] == [condition.type for condition in conditions]
    assert (after[0], after[2]) == (conditions[0], conditions[2])


def test_a_message_is_cut_and_cleaned() -> None:
    (condition,) = set_condition((), saying(is_true=True, message="\x1b[31m\u202e" + "x" * 40_000), 1, T0)
    assert condition.message.startswith("xxx")
    assert len(condition.message) <= 32_768


def test_planner_and_refusal_go_on_where_the_other_has_left_off() -> None:
    simulation = Simulation(a_run().build())
    simulation.step(succeed)
    planned = {condition.type: condition for condition in simulation.run.status.conditions}
    optional = {ConditionType.REPORTED, ConditionType.APPROVED, ConditionType.NOTIFIED}
    assert planned.keys() == set(ConditionType) - optional
    run = StoredRun("n", "r", 1, "7", simulation.run.status)
    after = blocked_status(BlockedRun(run, Blocker("QuotaExceeded", "no quota")), LATER)
    stalled = {condition.type: condition for condition in after.conditions}
    assert stalled[ConditionType.STALLED].last_transition_time == LATER
    assert stalled[ConditionType.READY].last_transition_time == planned[ConditionType.READY].last_transition_time
    assert stalled[ConditionType.COMPLETED] == planned[ConditionType.COMPLETED]
