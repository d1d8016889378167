"""Since when this process has seen each Job as it is. A process that has just begun has seen nothing stand still."""

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
    """Since when pods of it have been missing: no object says so."""


@dataclass
class Sightings:
    """What one process remembers between two looks at the Jobs of all runs."""

    clock: Callable[[], datetime]
    _seen: dict[RunKey, dict[str, _Sighting]] = field(default_factory=dict)
    """Run -> name of a Job -> sighting."""

    def note(self, key: RunKey, job: JobObservation) -> JobObservation:
        """The observation with the times that only who looks again and again can know."""
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
