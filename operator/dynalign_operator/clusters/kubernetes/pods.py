"""A pod of a stage as a value, parsed once from what the API server says. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.pod import CONTAINER

INDEX: Final = "batch.kubernetes.io/job-completion-index"
"""Annotation of a pod: its completion index."""
DISRUPTION: Final = "DisruptionTarget"
"""Condition of a pod that is being evicted, preempted or removed with its node."""
OUT_OF_MEMORY: Final = "OOMKilled"
"""Reason of a container that was killed at its memory limit."""


@dataclass(frozen=True)
class Explanation:
    """A reason with its message, either of which may be empty."""

    reason: str = ""
    message: str = ""

    def __str__(self) -> str:
        """`Reason: message`."""
        return f"{self.reason}: {self.message}".strip(": ")


@dataclass(frozen=True)
class Termination:
    """How the stage's container ended."""

    exit_code: int | None = None
    reason: str = ""
    message: str | None = None
    """Content of its termination log."""
    started_at: str = ""
    finished_at: str = ""
    """RFC 3339, which sorts by time."""

    @property
    def was_out_of_memory(self) -> bool:
        """Whether the kernel killed it at its memory limit."""
        return self.reason == OUT_OF_MEMORY


@dataclass(frozen=True)
class StagePod:
    """What is known of one pod."""

    index: int
    """Completion index; 0 for a Job with one completion, and for an annotation that is no index."""
    phase: str
    created: datetime
    message: str = ""
    """Message of the pod's own status, such as an eviction's."""
    runs: bool = False
    """Whether the stage's container runs."""
    started: datetime | None = None
    """Start of the container that runs or has ended."""
    waits_for: Explanation | None = None
    """Why the container waits; None if it does not, or if the kubelet gives no reason."""
    unscheduled: Explanation | None = None
    """Why no node takes the pod; None if it has one, or if the scheduler has not looked."""
    disruption: Explanation | None = None
    """Condition DisruptionTarget, if it is True."""
    ended: Termination | None = None
    """None until the container has ended."""

    @property
    def is_pending(self) -> bool:
        """Whether the container has never run."""
        return self.phase == "Pending" and not self.runs and self.ended is None

    @property
    def finished_at(self) -> str:
        """End of the container, RFC 3339; empty until then."""
        return self.ended.finished_at if self.ended else ""

    @property
    def exit_code(self) -> int | None:
        """Exit code of the container; None until it has ended."""
        return self.ended.exit_code if self.ended else None

    @property
    def was_out_of_memory(self) -> bool:
        """Whether the container was killed at its memory limit."""
        return self.ended is not None and self.ended.was_out_of_memory


def read_pod(pod: KubernetesObject) -> StagePod:
    """Parse a pod."""
    status: Mapping[str, Any] = pod.get("status") or {}
    statuses: Iterable[Mapping[str, Any]] = status.get("containerStatuses") or ()
    state: Mapping[str, Any] = next((s["state"] for s in statuses if s["name"] == CONTAINER), {})
    ended = _read_termination(state.get("terminated") or {})
    running: Mapping[str, Any] = state.get("running") or {}
    started = running.get("startedAt") or (ended.started_at if ended else "")
    waiting = _explanation(state.get("waiting") or {})
    unscheduled = _find_condition(status, "PodScheduled", "False")
    disruption = condition_of(status, DISRUPTION)
    return StagePod(
        index=_index_of(pod),
        phase=str(status.get("phase", "")),
        created=parse_time(pod["metadata"]["creationTimestamp"]),
        message=str(status.get("message") or ""),
        runs="running" in state,
        started=parse_time(started) if started else None,
        waits_for=waiting if waiting.reason else None,
        unscheduled=None if unscheduled is None else _explanation(unscheduled),
        disruption=None if disruption is None else _explanation(disruption),
        ended=ended,
    )


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time of the API server."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def condition_of(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of this type in the status of a Job or a pod, if it is True."""
    return _find_condition(status, kind, "True")


def _find_condition(status: Mapping[str, Any], kind: str, value: str) -> Mapping[str, Any] | None:
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind and c["status"] == value), None)


def _index_of(pod: KubernetesObject) -> int:
    text = str((pod["metadata"].get("annotations") or {}).get(INDEX, "0"))
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def _explanation(found: Mapping[str, Any]) -> Explanation:
    return Explanation(str(found.get("reason") or ""), str(found.get("message") or ""))


def _read_termination(found: Mapping[str, Any]) -> Termination | None:
    if not found:
        return None
    return Termination(
        exit_code=found.get("exitCode"),
        reason=str(found.get("reason") or ""),
        message=found.get("message"),
        started_at=found.get("startedAt") or "",
        finished_at=found.get("finishedAt") or "",
    )
