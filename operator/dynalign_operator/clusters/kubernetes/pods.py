"""Reading what the API server says of a pod. Pure."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.pod import CONTAINER

INDEX: Final = "batch.kubernetes.io/job-completion-index"
"""Annotation of a pod: its completion index."""


def parse_time(text: str) -> datetime:
    """An RFC 3339 time of the API server."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def condition_of(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of this type in the status of a Job or a pod, if it is True."""
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def index_of(pod: KubernetesObject) -> int:
    """The pod's completion index; 0 where the Job has but one, and where somebody has written what is no index."""
    text = str((pod["metadata"].get("annotations") or {}).get(INDEX, "0"))
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def state_of(pod: KubernetesObject) -> Mapping[str, Any]:
    """The state of the stage's container: `waiting`, `running` or `terminated`; empty before the kubelet speaks."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    state: Mapping[str, Any] = next((s["state"] for s in statuses if s["name"] == CONTAINER), {})
    return state


def terminated_of(pod: KubernetesObject) -> Mapping[str, Any]:
    """How the stage's container ended; empty while it has not."""
    terminated: Mapping[str, Any] = state_of(pod).get("terminated") or {}
    return terminated
