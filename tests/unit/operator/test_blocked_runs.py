"""Runs that cannot be planned: their status says why, and they continue once the cause is gone."""

from typing import Any

import pytest

from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError, parse_run
from dynalign_operator.planning.planner import plan
from dynalign_operator.planning.stored_run import BlockedRun, Blocker, InvalidRun, StoredRun
from support.builders import T0, a_run, minutes
from support.simulation import SETTINGS, Simulation

QUOTA = Blocker("Refused", "exceeded quota")


def stored(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": "r", "namespace": "n", "generation": 3, "resourceVersion": "7", "uid": "u"},
        "spec": {"model": {"uri": "bundled://x"}, **spec},
        "status": {"phase": "Running"},
    }


def version_of(status: AlignmentRunStatus, generation: int = 3) -> StoredRun:
    return StoredRun("n", "r", generation, "7", status)


def refused(status: AlignmentRunStatus, problem: str = "spec.colour is unknown.", **jobs: Any) -> AlignmentRunStatus:
    decided = plan(InvalidRun(version_of(status), problem, **jobs), T0, SETTINGS)
    assert (decided.create, decided.delete, decided.events) == ((), (), ())
    return decided.status


def blocked(run: AlignmentRun, blocker: Blocker = QUOTA) -> AlignmentRunStatus:
    decided = plan(BlockedRun(version_of(run.status, run.metadata.generation), blocker), T0, SETTINGS)
    assert (decided.create, decided.delete, decided.events) == ((), (), ())
    return decided.status


def conditions_of(status: AlignmentRunStatus) -> dict[ConditionType, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_what_is_wrong_is_said_field_by_field() -> None:
    with pytest.raises(InvalidRunError, match=r"spec\.iterations .*; spec\.colour ") as error:
        parse_run(stored(iterations=-1, colour="red"))
    found = error.value.stored
    assert (found.namespace, found.name, found.generation, found.resource_version) == ("n", "r", 3, "7")
    assert (found.status.phase, found.is_status_readable) == (Phase.RUNNING, True)


@pytest.mark.parametrize("conditions", [7, "Ready", {"type": "Ready"}, [7]])
def test_a_status_whose_conditions_cannot_be_read_has_none(conditions: Any) -> None:
    with pytest.raises(InvalidRunError, match="Another version of the operator wrote it") as error:
        parse_run({**stored(), "status": {"conditions": conditions}})
    assert (error.value.stored.status.conditions, error.value.stored.is_status_readable) == ((), False)


def test_an_invalid_run_that_never_began_is_failed_and_reporting_it_twice_changes_nothing() -> None:
    once = refused(a_run().build().status)
    assert (once.phase, once.observed_generation) == (Phase.FAILED, 3)
    assert conditions_of(once) == {
        ConditionType.READY: ("False", "BadConfig"),
        ConditionType.PROGRESSING: ("False", "Failed"),
        ConditionType.STALLED: ("True", "BadConfig"),
        ConditionType.COMPLETED: ("False", "NotFinished"),
    }
    later = plan(InvalidRun(version_of(once), "spec.colour is unknown."), T0 + minutes(5), SETTINGS)
    assert later.status == once


def test_an_invalid_run_that_has_begun_waits() -> None:
    status = Simulation(a_run().build()).plan().status
    once = refused(status, living_jobs=("r-fetch-a1",))
    assert (once.phase, once.observed_generation) == (status.phase, status.observed_generation)
    (stalled,) = (c for c in once.conditions if c.type is ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == ("True", "BadConfig")
    assert stalled.message.startswith("spec.colour is unknown. Job r-fetch-a1 goes on to its end")
    optional = {ConditionType.REPORTED, ConditionType.APPROVED, ConditionType.NOTIFIED}
    assert conditions_of(once).keys() == set(ConditionType) - optional


def test_a_corrected_run_continues() -> None:
    run = a_run().of_generation(4).build()
    simulation = Simulation(run.with_status(refused(run.status, "wrong")))
    decided = plan(simulation.observed(), T0, SETTINGS)
    assert decided.status.phase is not Phase.FAILED
    assert len(decided.create) == 1


def test_a_run_whose_plan_cannot_be_applied_is_not_ready_and_says_why() -> None:
    assert conditions_of(blocked(a_run().build())) == {
        ConditionType.READY: ("False", "Refused"),
        ConditionType.PROGRESSING: ("False", "Pending"),
        ConditionType.STALLED: ("True", "Refused"),
        ConditionType.COMPLETED: ("False", "NotFinished"),
    }


def test_a_blocked_run_that_is_complete_stays_complete() -> None:
    simulation = Simulation(a_run().with_iterations(1).build())
    simulation.finish()
    run = simulation.run
    before, after = conditions_of(run.status), conditions_of(blocked(run))
    assert run.status.phase is Phase.SUCCEEDED
    assert after[ConditionType.STALLED] == ("True", "Refused")
    assert {kind: after[kind] for kind in (ConditionType.COMPLETED, ConditionType.DEGRADED)} == {
        kind: before[kind] for kind in (ConditionType.COMPLETED, ConditionType.DEGRADED)
    }


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_an_ended_run_that_was_changed_is_resumed_after_a_refusal(phase: Phase) -> None:
    simulation = Simulation(a_run().with_iterations(1).of_generation(1).build())
    simulation.finish()
    simulation.run = simulation.run.with_status(simulation.run.status.evolve(phase=phase))
    simulation.change_spec(iterations=2)
    after = blocked(simulation.run)
    assert (after.phase, after.observed_generation) == (phase, 1)
    simulation.run = simulation.run.with_status(after)
    assert simulation.plan().status.phase not in (Phase.FAILED, Phase.SUCCEEDED)
