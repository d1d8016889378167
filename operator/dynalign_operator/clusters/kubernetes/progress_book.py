"""What each Job last said of itself, as far as this process has heard it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.stage_metrics import LiveMetrics, combine_progress
from dynalign_operator.planning.observed import JobProgress

SILENCE: Final = timedelta(seconds=60)
"""A Job whose last answer is older has unknown progress: its pods may be out of reach and well."""


@dataclass(frozen=True)
class Heard:
    """What a Job's pods have said, all together."""

    progress: JobProgress
    changed: datetime
    """When a pod of it last said something new; limits count from here."""
    answered: datetime
    """When a pod of it last said anything."""

    def is_current(self, now: datetime) -> bool:
        """Whether an answer is recent enough to tell standing still from silence."""
        return now - self.answered <= SILENCE


@dataclass
class ProgressBook:
    """What each Job last said of itself, all its pods together."""

    progress: dict[RunKey, Heard] = field(default_factory=dict)
    """Namespace and name of a Job -> what has been heard of it."""
    live: dict[RunKey, tuple[LiveMetrics, ...]] = field(default_factory=dict)
    """Namespace and name of a Job -> the latest reading of each of its pods that has answered."""
    _readings: dict[RunKey, dict[str, LiveMetrics]] = field(default_factory=dict)
    """Job -> uid of a pod -> its latest reading."""

    def note(self, job: RunKey, readings: Mapping[str, LiveMetrics], pods: Iterable[str], now: datetime) -> bool:
        """Keep the readings of a Job's pods, by uid; True when the run should be looked at.

        That is so when a pod says something new, and when an answer comes after a silence in which no limit counted.
        A pod of `pods` that did not answer this time keeps its latest reading: silence is no progress.
        """
        before, known = self._readings.get(job, {}), self.progress.get(job)
        after = {pod: reading for pod in pods if (reading := readings.get(pod, before.get(pod))) is not None}
        if not readings:
            return False
        is_new = any(before.get(pod) != reading for pod, reading in readings.items())
        was_silent = known is None or not known.is_current(now)
        self._readings[job], self.live[job] = after, tuple(after.values())
        total = combine_progress(after.values())
        changed = now if is_new or known is None else known.changed
        self.progress[job] = Heard(total, changed=changed, answered=now)
        return is_new or was_silent

    def keep(self, jobs: Iterable[RunKey]) -> None:
        """Forget all other Jobs."""
        kept = set(jobs)
        for book in (self.progress, self.live, self._readings):
            for job in book.keys() - kept:
                del book[job]
