"""A gang whose nodes have not met: the run says within two minutes who waits for which address, and what to look at."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dynalign_contract.gang import WaitCause, WaitMetric
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import ConditionType
from dynalign_operator.clusters.stage_metrics import parse_metrics
from dynalign_operator.manifests.service import coordinator
from dynalign_operator.planning import reasons
from dynalign_operator.planning.deadlines import job_limit
from dynalign_operator.planning.observed import GangWait, JobObservation, JobProgress, Observed
from dynalign_operator.planning.planner import plan
from support.builders import a_run
from support.simulation import SETTINGS, Simulation

TWO_MINUTES = timedelta(minutes=2)


def simulation(nodes: int = 3) -> Simulation:
    return Simulation(a_run().with_spec(training={"nodes": nodes}).build()).until(Stage.TRAIN, 0)


def observed(found: Simulation, *waits: GangWait, total: float = 0.0) -> Observed:
    """The gang's Job runs since now; these nodes wait."""
    (name, job), *_ = ((name, job) for name, job in found.jobs.items() if job.stage is Stage.TRAIN)
    progress = JobProgress(0.0, total, waits)
    running: JobObservation = replace(
        job, start_time=found.now, progress=progress, last_progress_time=found.now, name=name
    )
    return Observed(run=found.run, jobs=(running,))


def message(seen: Observed, at: object) -> str:
    status = plan(seen, at, SETTINGS).status  # type: ignore[arg-type]
    (progressing,) = (c for c in status.conditions if c.type is ConditionType.PROGRESSING)
    assert progressing.reason == reasons.STAGE_RUNNING
    return progressing.message


def test_the_run_says_who_waits_for_which_address_and_since_when() -> None:
    found = simulation()
    wait = GangWait(1, found.now, WaitCause.SILENT)
    seen = observed(found, wait)
    said = message(seen, found.now + TWO_MINUTES)
    (job,) = seen.jobs
    assert f"wait for node 0 at {coordinator(found.run, job.name)}: node 1 since {found.now:%H:%M:%S} UTC." in said
    assert "network policies, and at firewalls that drop forwarded packets" in said
    assert "It goes on by itself once they can connect." in said


def test_it_says_so_without_another_event_within_two_minutes() -> None:
    found = simulation()
    seen = observed(found, GangWait(1, found.now, WaitCause.SILENT))
    assert "wait for node 0" not in message(seen, found.now)
    wake = plan(seen, found.now, SETTINGS).wake_at
    assert wake is not None
    assert wake <= found.now + TWO_MINUTES
    assert "wait for node 0" in message(seen, wake)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (WaitCause.NAME, "the headless Service train-r and the cluster's DNS"),
        (WaitCause.REFUSED, "Node 0 does not listen yet: look at its log"),
        (WaitCause.SILENT, "iptables -S FORWARD"),
    ],
)
def test_each_cause_has_its_remedy(cause: WaitCause, words: str) -> None:
    found = simulation()
    assert words in message(observed(found, GangWait(2, found.now, cause)), found.now + TWO_MINUTES)


def test_nodes_that_cannot_be_asked_are_spoken_of_too() -> None:
    found = simulation()
    said = message(observed(found), found.now + TWO_MINUTES)
    assert "No node of the training has told of a step yet. Its 3 nodes meet at" in said
    assert "kubectl logs job/" in said


@pytest.mark.parametrize("total", [8.0])
def test_nothing_is_said_once_a_step_is_known(total: float) -> None:
    found = simulation()
    assert "nodes" not in message(observed(found, total=total), found.now + 5 * TWO_MINUTES).lower()


def test_a_single_node_waits_for_nobody() -> None:
    found = simulation(nodes=1)
    assert "node" not in message(observed(found), found.now + 5 * TWO_MINUTES).lower()


def test_a_stall_ends_with_that_remedy() -> None:
    found = simulation()
    seen = observed(found, GangWait(1, found.now, WaitCause.SILENT))
    limit = job_limit(seen.run, seen.jobs[0])
    assert limit is not None
    assert limit.reason == reasons.STALL_TIMEOUT
    assert "node 1 since" in limit.message
    assert "firewalls that drop forwarded packets" in limit.message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {WaitMetric.SINCE: 0.0, WaitMetric.NODE: 1.0, WaitMetric.CAUSE: 3.0},
        {WaitMetric.SINCE: 1e300, WaitMetric.NODE: 1.0, WaitMetric.CAUSE: 3.0},
        {WaitMetric.SINCE: 5.0, WaitMetric.NODE: 1.0, WaitMetric.CAUSE: 9.0},
        {WaitMetric.SINCE: 5.0, WaitMetric.NODE: float("inf"), WaitMetric.CAUSE: 1.0},
        {WaitMetric.SINCE: 5.0},
    ],
)
def test_what_a_pod_says_wrongly_is_no_wait(values: dict[WaitMetric, float]) -> None:
    lines = [f'dynalign_stage_metric{{name="{name}"}} {value}' for name, value in values.items()]
    assert parse_metrics("\n".join([*lines, ""])).wait is None
