"""What KubeCluster remembers between two looks, and what it takes for a run's own; nothing needs an API server."""

import asyncio
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dynalign_contract.result import StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.paths import ApiPath
from dynalign_operator.clusters.kubernetes.progress_book import SILENCE, Heard
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.labels import JOB_NAME, JobLabels, job_labels
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, JobProgress, Observed
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import plan
from support.builders import a_result

KEY = RunKey("n", "r")
NOW = "2026-11-24T10:05:00Z"
LABELS = job_labels(JobLabels("r", Stage.FETCH, None, 1))
RUN: dict[str, Any] = {
    "apiVersion": "dynalign.io/v1alpha1",
    "kind": "AlignmentRun",
    "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "1"},
    "spec": {"model": {"uri": "bundled://smollm2-135m-instruct"}},
}
JOB: dict[str, Any] = {
    "metadata": {
        "name": "r-fetch-a1",
        "namespace": "n",
        "uid": "j",
        "labels": LABELS,
        "creationTimestamp": "2026-11-24T10:00:00Z",
        "ownerReferences": [{"uid": "u", "controller": True}],
    },
    "spec": {"completions": 1},
}
POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "p",
        "ownerReferences": [{"uid": "j", "controller": True}],
        "labels": {**LABELS, JOB_NAME: "r-fetch-a1"},
        "creationTimestamp": "2026-11-24T10:00:01Z",
    },
    "status": {"phase": "Pending"},
}


def look(cluster: KubeCluster) -> JobObservation:
    observed = asyncio.run(cluster.observe(KEY))
    assert isinstance(observed, Observed)
    assert observed.claims is None, "claims are asked for between two Jobs only"
    (job,) = observed.jobs
    return job


class NoRequests(KubeApi):
    """Fails for whoever asks the API server."""

    def __init__(self) -> None:
        super().__init__(None)


def test_the_wait_for_a_pod_that_nobody_creates_begins_when_it_is_first_missed() -> None:
    store = Store()
    cluster = KubeCluster(NoRequests(), store, {})
    store.put(Kind.RUN, RUN)
    store.put(Kind.JOB, JOB)
    first = look(cluster)
    assert first.missing_pods == 1
    assert first.waiting_since is not None
    assert first.waiting_since > first.creation_time
    assert look(cluster).waiting_since == first.waiting_since

    store.put(Kind.POD, POD)
    pending = look(cluster)
    assert (pending.missing_pods, str(pending.waiting_since)) == (0, "2026-11-24 10:00:01+00:00")

    store.remove(Kind.POD, POD)  # drained; the one that replaces it is not there yet
    again = look(cluster)
    assert again.waiting_since is not None
    assert again.waiting_since > first.waiting_since


class Pods(KubeApi):
    """Has these pods, and counts how often they are asked for."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        super().__init__(None)
        self.pods, self.asked = pods, 0

    async def get(self, path: ApiPath, *, metadata_only: bool = False) -> dict[str, Any] | None:
        assert path.endswith("/pods?labelSelector=batch.kubernetes.io%2Fjob-name%3Dr-fetch-a1"), path
        self.asked += 1
        return {"items": list(self.pods)}


@pytest.mark.parametrize("stale", [True, False], ids=["the pod was seen running", "the pod was never seen"])
def test_a_job_that_is_complete_before_its_pod_s_end_was_told_has_succeeded(stale: bool) -> None:
    ended = deepcopy(POD)
    ended["metadata"]["resourceVersion"] = "9"
    message = a_result(path="model").encode().decode()
    terminated = {"exitCode": 0, "message": message, "startedAt": NOW, "finishedAt": NOW}
    ended["status"] = {
        "phase": "Succeeded",
        "containerStatuses": [{"name": "stage", "state": {"terminated": terminated}}],
    }
    job = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": NOW}]}}
    store, api = Store(), Pods(ended)
    store.put(Kind.RUN, RUN)
    store.put(Kind.JOB, job)
    if stale:
        store.put(Kind.POD, POD)
    cluster = KubeCluster(api, store, {})
    for _ in range(2):
        observed = asyncio.run(cluster.observe(KEY))
        assert isinstance(observed, Observed)
        (found,) = observed.jobs
        assert found.phase is JobPhase.SUCCEEDED
        assert found.results == (StageResult.decode(message),)
    assert api.asked == 1


def test_a_job_whose_pods_are_gone_is_asked_about_once() -> None:
    store, api = Store(), Pods()
    store.put(Kind.RUN, RUN)
    failed = [{"type": "Failed", "status": "True", "lastTransitionTime": NOW}]
    store.put(Kind.JOB, {**JOB, "status": {"conditions": failed}})
    cluster = KubeCluster(api, store, {})
    for _ in range(2):
        observed = asyncio.run(cluster.observe(KEY))
        assert isinstance(observed, Observed)
        assert observed.jobs[0].reason == DISRUPTED
    assert api.asked == 1


OLD = datetime(2026, 11, 24, 10, tzinfo=UTC)
"""When the Job of the following tests was created, and its container began."""
JOB_KEY = RunKey("n", "r-fetch-a1")


def running_pod(since: datetime = OLD) -> dict[str, Any]:
    pod = deepcopy(POD)
    state = {"running": {"startedAt": since.isoformat()}}
    pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "stage", "state": state}]}
    return pod


@dataclass
class Process:
    """One operator process, as far as it observes and plans: begins with an empty memory, whatever the cluster holds."""

    now: datetime
    pod: dict[str, Any] = field(default_factory=running_pod)
    progress: dict[RunKey, Heard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store()
        self.store.put(Kind.RUN, RUN)
        self.store.put(Kind.JOB, JOB)
        self.store.put(Kind.POD, self.pod)
        self.cluster = KubeCluster(NoRequests(), self.store, self.progress, now=lambda: self.now)

    def plan(self) -> Plan:
        observed = asyncio.run(self.cluster.observe(KEY))
        assert isinstance(observed, Observed)
        return plan(observed, self.now, BuildSettings())

    def after(self, time: timedelta) -> Plan:
        self.now += time
        return self.plan()

    def hear(self, changed: datetime) -> None:
        self.progress[JOB_KEY] = Heard(JobProgress(1, 2), changed=changed, answered=self.now)


HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def test_a_restart_never_ends_a_stage_however_long_it_has_run() -> None:
    """Four operators, one after the other, hours after the stage has begun; none of them reads anything."""
    for restart in range(4):
        process = Process(OLD + (10 + restart) * HOUR)
        assert process.plan().delete == ()
        assert process.after(HOUR).delete == ()


def test_a_stage_whose_progress_nobody_reads_does_not_stall_and_its_condition_says_so() -> None:
    process = Process(OLD + HOUR)
    process.plan()
    decided = process.after(30 * MINUTE)
    assert decided.delete == ()
    (said,) = [c.message for c in decided.status.conditions if c.type == "Progressing"]
    assert "progress is unknown" in said
    assert "spec.policy.stallTimeout" in said


def test_what_a_process_has_seen_stand_still_for_too_long_is_stalled() -> None:
    process = Process(OLD + 10 * HOUR)
    begun = process.now
    process.hear(changed=begun)
    assert process.plan().delete == ()
    process.now += 14 * MINUTE
    process.hear(changed=begun)
    assert process.plan().delete == ()
    process.now += MINUTE
    process.hear(changed=begun)
    assert process.plan().delete == ("r-fetch-a1",)


def test_pods_that_have_fallen_silent_are_not_stalled_until_they_answer_again() -> None:
    process = Process(OLD + HOUR)
    begun = process.now
    process.hear(changed=begun)
    process.plan()
    assert process.after(HOUR).delete == (), "out of reach: that proves nothing"
    process.hear(changed=begun)
    assert process.plan().delete == ("r-fetch-a1",), "an answer proves that nothing has moved for an hour"
    process.hear(changed=process.now)
    assert process.plan().delete == ()
    process.now += SILENCE
    assert process.plan().delete == ()


@pytest.mark.parametrize("skew", [timedelta(days=-2), timedelta(days=2)], ids=["behind", "ahead"])
def test_the_clock_of_a_node_ends_nothing_and_keeps_nothing_alive(skew: timedelta) -> None:
    process = Process(OLD + MINUTE, running_pod(since=OLD + skew))
    begun = process.now
    process.hear(changed=begun)
    assert process.plan().delete == ()
    process.now += 15 * MINUTE
    process.hear(changed=begun)
    assert process.plan().delete == ("r-fetch-a1",)


def test_a_restart_gives_a_job_that_waits_its_whole_time_again() -> None:
    process = Process(OLD + 10 * HOUR, POD)
    assert process.plan().status.phase == "Pending"
    assert process.after(29 * MINUTE).status.phase == "Pending"
    assert process.after(MINUTE).status.phase == "Failed"


def test_a_stage_that_has_lost_its_pods_and_finds_no_place_has_an_end() -> None:
    lost = running_pod()
    lost["status"]["phase"] = "Failed"
    lost["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 137, "startedAt": OLD.isoformat()}}
    process = Process(OLD + HOUR, lost)
    process.store.put(Kind.POD, {**POD, "metadata": {**POD["metadata"], "name": "q", "uid": "q"}})
    assert process.plan().status.phase != "Failed"
    ended = process.after(30 * MINUTE).status
    (stalled,) = [c for c in ended.conditions if c.type == "Stalled"]
    assert (ended.phase, stalled.reason) == ("Failed", "PendingTimeout")


FORGED = {
    "no controller": None,
    "another Job": {"uid": "other", "controller": True},
    "owner, not controller": {"uid": "j"},
}


@pytest.mark.parametrize("owner", FORGED.values(), ids=FORGED.keys())
def test_a_pod_counts_only_when_the_run_s_own_job_controls_it(owner: dict[str, Any] | None) -> None:
    """Labels alone prove nothing: this one tells of a success that never was."""
    forged = running_pod()
    forged["metadata"] |= {"name": "forged", "uid": "forged", "ownerReferences": [owner] if owner else []}
    message = a_result(path="model").encode().decode()
    terminated = {"exitCode": 0, "message": message, "startedAt": NOW, "finishedAt": NOW}
    forged["status"] = {
        "phase": "Succeeded",
        "containerStatuses": [{"name": "stage", "state": {"terminated": terminated}}],
    }
    job = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": NOW}]}}
    store, api = Store(), Pods(forged)
    store.put(Kind.RUN, RUN)
    store.put(Kind.JOB, job)
    store.put(Kind.POD, forged)
    observed = asyncio.run(KubeCluster(api, store, {}).observe(KEY))
    assert isinstance(observed, Observed)
    assert [job.results for job in observed.jobs] == [(None,)]


def test_a_job_that_claims_more_pods_than_there_can_be_costs_no_memory() -> None:
    store = Store()
    store.put(Kind.RUN, RUN)
    store.put(Kind.JOB, {**JOB, "spec": {"completions": 2**31 - 1}})
    assert len(look(KubeCluster(NoRequests(), store, {})).results) < 100_000
