"""Of pods that do not run yet: since when, and what the scheduler or the kubelet says. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dynalign_operator.clusters.kubernetes.pods import condition_of, index_of, parse_time, state_of
from dynalign_operator.manifests.objects import KubernetesObject

_ON_THE_WAY: Final = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class Wait:
    """What a Job's pods wait for."""

    reason: str
    """Of the first pod that has one; empty when none has."""
    message: str
    """Its reason and message."""
    since: datetime | None
    """When the oldest of them was created; None when no pod waits."""
    missing_pods: int
    """Pods that have never been created, or have vanished without success."""


def read_wait(job: KubernetesObject, pods: Sequence[KubernetesObject]) -> Wait:
    """The wait of a Job that has not ended."""
    created = [parse_time(pod["metadata"]["creationTimestamp"]) for pod in pods if _is_pending(pod)]
    reason, message = next((said for pod in pods if (said := _said_of(pod)) is not None), ("", ""))
    return Wait(
        reason=reason,
        message=message,
        since=min(created, default=None),
        missing_pods=_count_missing(job, pods),
    )


def _count_missing(job: KubernetesObject, pods: Sequence[KubernetesObject]) -> int:
    """Completion indexes without any pod; one that succeeded and was then removed is not missed."""
    succeeded: int = sum(pod.get("status", {}).get("phase") == "Succeeded" for pod in pods)
    wanted, counted = int(job["spec"].get("completions") or 1), int(job.get("status", {}).get("succeeded") or 0)
    removed = max(0, counted - succeeded)
    return max(0, wanted - removed - len({index_of(pod) for pod in pods}))


def is_suspended(job: KubernetesObject) -> bool:
    """Whether a queue holds the Job back, or has just let it go and its controller has not noticed yet."""
    return bool(job["spec"].get("suspend")) or condition_of(job.get("status", {}), "Suspended") is not None


def _is_pending(pod: KubernetesObject) -> bool:
    state = state_of(pod)
    return pod.get("status", {}).get("phase") == "Pending" and not (state.get("running") or state.get("terminated"))


def _said_of(pod: KubernetesObject) -> tuple[str, str] | None:
    """Reason, and reason with message; None for a pod that runs, has run, or is on its way."""
    waiting = state_of(pod).get("waiting") or {}
    if waiting.get("reason") and waiting["reason"] not in _ON_THE_WAY:
        return waiting["reason"], _joined(waiting)
    conditions: Iterable[Mapping[str, Any]] = pod.get("status", {}).get("conditions") or ()
    for condition in conditions:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", ""), _joined(condition)
    return None


def _joined(thing: Mapping[str, Any]) -> str:
    return f"{thing.get('reason', '')}: {thing.get('message', '')}".strip(": ")
