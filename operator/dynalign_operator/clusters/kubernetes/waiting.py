"""Pods that do not run yet: since when, and what the scheduler or the kubelet says. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dynalign_operator.clusters.kubernetes.pods import Explanation, StagePod, condition_of
from dynalign_operator.manifests.objects import KubernetesObject

_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class Wait:
    """What a Job's pods wait for."""

    reason: str
    """Reason of the first pod that has one; empty if none has."""
    message: str
    """Reason and message of that pod."""
    since: datetime | None
    """Creation of the oldest pod that waits; None if none does."""
    missing_pods: int
    """Pods that have never been created, or have vanished without success."""


def read_wait(job: KubernetesObject, pods: Sequence[StagePod]) -> Wait:
    """The wait of a Job that has not ended."""
    explanation = next((found for pod in pods if (found := _explanation_of(pod)) is not None), None)
    return Wait(
        reason=explanation.reason if explanation else "",
        message=str(explanation) if explanation else "",
        since=min((pod.created for pod in pods if pod.is_pending), default=None),
        missing_pods=_count_missing(job, pods),
    )


def _count_missing(job: KubernetesObject, pods: Sequence[StagePod]) -> int:
    """Completion indexes without any pod; one that succeeded and was then removed is not missed."""
    succeeded = sum(pod.phase == "Succeeded" for pod in pods)
    wanted, counted = int(job["spec"].get("completions") or 1), int(job.get("status", {}).get("succeeded") or 0)
    removed = max(0, counted - succeeded)
    return max(0, wanted - removed - len({pod.index for pod in pods}))


def is_suspended(job: KubernetesObject) -> bool:
    """Whether a queue holds the Job back, or has just let it go and its controller has not noticed yet."""
    return bool(job["spec"].get("suspend")) or condition_of(job.get("status", {}), "Suspended") is not None


def _explanation_of(pod: StagePod) -> Explanation | None:
    """Why a pod does not run; None if it runs, has run, or is being started."""
    if pod.waits_for is not None and pod.waits_for.reason not in _STARTING:
        return pod.waits_for
    return pod.unscheduled
