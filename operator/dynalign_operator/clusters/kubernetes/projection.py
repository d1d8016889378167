"""The part of an object that the operator reads. Pure.

What is left out is most of it: managed fields, the copy that `kubectl apply` leaves, and the specification of a pod,
which a Job holds too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dynalign_operator.api.approvals import APPROVAL_ANNOTATION
from dynalign_operator.api.status import Phase, StagePhase
from dynalign_operator.clusters.kubernetes.pods import INDEX, condition_of
from dynalign_operator.manifests.objects import KubernetesObject

_METADATA: Final = (
    *("name", "namespace", "uid", "resourceVersion", "generation", "labels"),
    *("creationTimestamp", "deletionTimestamp", "ownerReferences"),
)
_POD_STATUS: Final = ("phase", "podIP", "conditions", "message", "reason")
_POD_SPEC: Final = ("hostNetwork", "nodeName")
_CONTAINER: Final = ("name", "state")
_JOB_SPEC: Final = ("completions", "parallelism", "suspend", "successPolicy")
_JOB_STATUS: Final = ("conditions", "succeeded", "failed", "active", "startTime", "completionTime")
_ENDED: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED})
_SETTLED: Final = frozenset({StagePhase.SUCCEEDED, StagePhase.FAILED})


def project_run(run: KubernetesObject) -> KubernetesObject:
    """What is kept of a run: specification and status whole, and a person's decision about it."""
    return {**_only(run, ("apiVersion", "kind", "spec", "status")), "metadata": _metadata(run, APPROVAL_ANNOTATION)}


def project_job(job: KubernetesObject) -> KubernetesObject:
    """What is kept of a Job: how many pods it wants, and where it stands."""
    return {
        "metadata": _metadata(job),
        "spec": _only(job.get("spec") or {}, _JOB_SPEC),
        "status": _only(job.get("status") or {}, _JOB_STATUS),
    }


def project_pod(pod: KubernetesObject) -> KubernetesObject:
    """What is kept of a pod: its place among the Job's pods, its address, and what its containers do or have said."""
    status = pod.get("status") or {}
    containers: Sequence[Mapping[str, Any]] = status.get("containerStatuses") or ()
    said = [_only(container, _CONTAINER) for container in containers]
    return {
        "metadata": _metadata(pod),
        "spec": _only(pod.get("spec") or {}, _POD_SPEC),
        "status": {**_only(status, _POD_STATUS), **({"containerStatuses": said} if said else {})},
    }


def is_ended_run(run: KubernetesObject) -> bool:
    """Whether the run has ended, and with the specification that it has now, and its report has been seen to."""
    status = run.get("status") or {}
    generation = run["metadata"].get("generation", 1)
    is_reported = (status.get("report") or {}).get("phase", StagePhase.SUCCEEDED) in _SETTLED
    return is_reported and status.get("phase") in _ENDED and status.get("observedGeneration") == generation


def is_ended_job(job: KubernetesObject) -> bool:
    """Whether the Job has succeeded or failed."""
    status = job.get("status") or {}
    return any(condition_of(status, kind) is not None for kind in ("Complete", "Failed"))


def is_ended_pod(pod: KubernetesObject) -> bool:
    """Whether all containers of the pod have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _metadata(obj: KubernetesObject, annotation: str = INDEX) -> dict[str, Any]:
    kept = _only(obj["metadata"], _METADATA)
    text = (obj["metadata"].get("annotations") or {}).get(annotation)
    return kept if text is None else {**kept, "annotations": {annotation: text}}


def _only(obj: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: obj[name] for name in names if name in obj}
