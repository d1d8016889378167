"""Runs with webhooks in an installation that sends none say so."""

from dataclasses import replace

import pytest

from dynalign_operator.api.status import ConditionType
from dynalign_operator.cli.situation import explain_situation
from dynalign_operator.planning import reasons
from dynalign_operator.planning.notifications import untold_condition
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.planner import plan
from dynalign_operator.service.settings import read_settings
from support.builders import T0, a_run
from support.simulation import SETTINGS, Simulation
from support.snapshots import snapshot_of

HOOK = {"url": "https://hooks.example.com/x", "secretRef": {"name": "hook", "key": "key"}}


def of_run() -> Simulation:
    return Simulation(a_run().with_iterations(1).with_spec(notify=[HOOK]).stored().build())


@pytest.mark.parametrize("enabled", [True, False])
def test_a_run_says_whether_its_installation_tells_its_webhooks(enabled: bool) -> None:
    """From the variable that the chart sets to what the user reads."""
    settings = read_settings({"DYNALIGN_NOTIFICATIONS": str(enabled).lower()}).build
    simulation = of_run()
    first = plan(simulation.observed(), simulation.now, settings)
    (condition,) = (entry for entry in first.status.conditions if entry.type is ConditionType.NOTIFIED)
    assert condition.status == str(enabled)
    warnings = [event.message for event in first.events if event.reason == reasons.NOTIFICATIONS_OFF]
    assert warnings == ([] if enabled else [condition.message])
    run = simulation.run.with_status(first.status)
    snapshot = replace(snapshot_of(simulation), run=run)
    advice = explain_situation(snapshot, (), T0).to_do
    assert (condition.message in advice) is not enabled
    again = plan(Observed(run), T0, settings)
    assert not any(event.reason == reasons.NOTIFICATIONS_OFF for event in again.events), "said once"


def test_the_condition_goes_with_the_webhooks_and_follows_the_installation() -> None:
    off = replace(SETTINGS, sends_notifications=False)
    run = of_run().run
    untold = run.with_status(plan(Observed(run), T0, off).status)
    assert untold_condition(untold.status) is not None
    told = plan(Observed(untold), T0, SETTINGS).status
    assert [entry.status for entry in told.conditions if entry.type is ConditionType.NOTIFIED] == ["True"]
    without = untold.model_copy(update={"spec": untold.spec.model_copy(update={"notify": ()})})
    kinds = {entry.type for entry in plan(Observed(without), T0, off).status.conditions}
    assert ConditionType.NOTIFIED not in kinds
    assert ConditionType.READY in kinds
