"""Time between two Jobs of a run: from a Job's completion event to the next Job's creation event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from dynalign_contract.stages import SIDE_STAGES
from dynalign_operator.api.status import Phase
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.observe import has_succeeded
from dynalign_operator.clusters.kubernetes.store import Kind
from dynalign_operator.manifests.labels import STAGE

_UNDER_WAY: Final = frozenset({Phase.PENDING, Phase.RUNNING})


@dataclass(frozen=True)
class _Latest:
    """A run's latest Job."""

    name: str
    completed: float | None = None
    """When its completion event arrived; None before."""


class Transitions:
    """Measures the time from a Job's completion event to the next Job's creation event."""

    def __init__(self, record: Callable[[float], None], clock: Callable[[], float] = monotonic) -> None:
        self._record, self._clock = record, clock
        self._latest: dict[RunKey, _Latest] = {}

    def note(self, kind: Kind, run: RunKey, event: Mapping[str, Any]) -> None:
        """Process an event about this run or one of its objects; the `type` is None in the first listing."""
        if kind is Kind.JOB:
            self._note_job(run, event["type"], event["object"])
        elif kind is Kind.RUN and (event["type"] == "DELETED" or not _is_under_way(event["object"])):
            self._latest.pop(run, None)

    def _note_job(self, run: RunKey, event_type: str | None, job: Mapping[str, Any]) -> None:
        if (job["metadata"].get("labels") or {}).get(STAGE) in SIDE_STAGES:
            return
        name, latest = job["metadata"]["name"], self._latest.get(run)
        if has_succeeded(job):
            if latest == _Latest(name):
                self._latest[run] = _Latest(name, self._clock())
        elif event_type in ("ADDED", None):
            if latest is not None and latest.completed is not None and event_type == "ADDED":
                self._record(self._clock() - latest.completed)
            self._latest[run] = _Latest(name)


def _is_under_way(run: Mapping[str, Any]) -> bool:
    return run.get("status", {}).get("phase", Phase.PENDING) in _UNDER_WAY
