"""Since when this process has seen each Job in its state; a process that has just started has seen no standstill."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.planning.observed import JobObservation, JobPhase


class _State(StrEnum):
    """What a Job does, as far as a limit depends on it."""

    WAITING = "Waiting"
    RUNNING = "Running"


@dataclass
class _Sighting:
    """One Job, in one state."""

    state: _State
    since: datetime
    missing_since: datetime | None = None
    """When a pod of it was first seen missing; Kubernetes does not record this."""


@dataclass
class Sightings:
    """Times that one process remembers between observations of the Jobs of all runs."""

    clock: Callable[[], datetime]
    _seen: dict[RunKey, dict[str, _Sighting]] = field(default_factory=dict)
    """Run -> name of a Job -> sighting."""

    def note(self, key: RunKey, job: JobObservation) -> JobObservation:
        """Return the observation with the times that Kubernetes does not record."""
        known = self._seen.setdefault(key, {})
        if job.phase is not JobPhase.ACTIVE or job.suspended:
            known.pop(job.name, None)
            return job
        now, state = self.clock(), _State.RUNNING if job.start_time is not None and not job.stranded else _State.WAITING
        sighting = known.get(job.name)
        if sighting is None or sighting.state is not state:
            sighting = known[job.name] = _Sighting(state, now, sighting.missing_since if sighting else None)
        sighting.missing_since = (sighting.missing_since or now) if job.missing_pods else None
        return replace(job, seen_since=sighting.since, waiting_since=job.waiting_since or sighting.missing_since)

    def keep(self, key: RunKey, jobs: Iterable[str]) -> None:
        """Forget all other Jobs of a run."""
        names = set(jobs)
        self._seen[key] = {name: seen for name, seen in self._seen.get(key, {}).items() if name in names}

    def forget(self, key: RunKey) -> None:
        """Forget a run."""
        self._seen.pop(key, None)
