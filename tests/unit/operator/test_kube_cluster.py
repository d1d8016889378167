"""What KubeCluster remembers between two looks; nothing here needs an API server."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from dynalign_contract.result import StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kube import KubeCluster
from dynalign_operator.clusters.kube_api import KubeApi
from dynalign_operator.clusters.kube_store import JOB_NAME, Kind, Store
from dynalign_operator.manifests.labels import JobLabels, job_labels
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, Observed
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
        "labels": LABELS,
        "creationTimestamp": "2026-11-24T10:00:00Z",
        "ownerReferences": [{"uid": "u"}],
    },
    "spec": {"completions": 1},
}
POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "p",
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

    async def get(self, path: str) -> dict[str, Any] | None:
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
