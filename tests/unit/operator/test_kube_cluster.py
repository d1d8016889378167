"""What KubeCluster remembers between two looks; nothing here needs an API server."""

import asyncio
from typing import Any

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kube import KubeCluster
from dynalign_operator.clusters.kube_api import KubeApi
from dynalign_operator.clusters.kube_store import JOB_NAME, Kind, Store
from dynalign_operator.manifests.labels import JobLabels, job_labels
from dynalign_operator.planning.observed import JobObservation, Observed

KEY = RunKey("n", "r")
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
