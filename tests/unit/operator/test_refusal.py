"""A stored object that is no run: its status says so, and a mended one goes on."""

from typing import Any

import pytest

from dynalign_operator.api.status import ConditionType, Phase
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError, parse_run
from dynalign_operator.planning.planner import plan
from dynalign_operator.planning.refusal import refuse, stall
from support.builders import T0, a_run, minutes
from support.simulation import SETTINGS, Simulation


def stored(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": "r", "namespace": "n", "generation": 3, "resourceVersion": "7", "uid": "u"},
        "spec": {"model": {"uri": "bundled://x"}, **spec},
        "status": {"phase": "Running"},
    }


def test_what_is_wrong_is_said_field_by_field() -> None:
    with pytest.raises(InvalidRunError, match=r"spec\.iterations .*; spec\.colour ") as error:
        parse_run(stored(iterations=-1, colour="red"))
    assert (error.value.generation, error.value.resource_version) == (3, "7")
    assert error.value.status is not None
    assert error.value.status.phase is Phase.RUNNING


def test_a_refused_run_that_never_began_is_failed_and_saying_it_twice_changes_nothing() -> None:
    once = refuse(a_run().build().status, 3, "spec.colour is unknown.", T0)
    assert (once.phase, once.observed_generation) == (Phase.FAILED, 3)
    said = {condition.type: (condition.status, condition.reason) for condition in once.conditions}
    assert said[ConditionType.STALLED] == ("True", "BadConfig")
    assert said[ConditionType.READY] == ("False", "BadConfig")
    assert refuse(once, 3, "spec.colour is unknown.", T0 + minutes(5)) == once


def test_a_refused_run_that_has_begun_waits() -> None:
    status = Simulation(a_run().build()).plan().status
    once = refuse(status, 3, "spec.colour is unknown.", T0, living=["Job r-fetch-a1"])
    assert (once.phase, once.observed_generation) == (status.phase, status.observed_generation)
    (stalled,) = (c for c in once.conditions if c.type is ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == ("True", "BadConfig")
    assert stalled.message.startswith("spec.colour is unknown. Job r-fetch-a1 goes on to its end")
    assert len(once.conditions) == len(ConditionType)


def test_a_mended_run_goes_on() -> None:
    run = a_run().of_generation(4).build()
    simulation = Simulation(run.model_copy(update={"status": refuse(run.status, 3, "wrong", T0)}))
    decided = plan(simulation.observed(), T0, SETTINGS)
    assert decided.status.phase is not Phase.FAILED
    assert len(decided.create) == 1


def test_a_run_that_the_cluster_does_not_take_is_not_ready_and_says_why() -> None:
    once = stall(a_run().build().status, 1, "Refused", "exceeded quota", T0)
    said = {condition.type: (condition.status, condition.reason) for condition in once.conditions}
    assert said[ConditionType.READY] == ("False", "Refused")
    assert said[ConditionType.STALLED] == ("True", "Refused")
