"""When a run will probably have ended: what remains, at the mean time of each stage until now."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from statistics import fmean

from dynalign_contract.stages import Stage
from dynalign_operator.api.durations import MAX_DURATION_SECONDS
from dynalign_operator.api.status import AlignmentRunStatus, StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.planning.observed import JobObservation, Step
from dynalign_operator.planning.sequence import count_following


def mean_stage_seconds(status: AlignmentRunStatus) -> dict[Stage, float]:
    """Mean wall time of each stage that has succeeded, first attempt to end, over the iterations kept whole."""
    seconds: defaultdict[Stage, list[float]] = defaultdict(list)
    for entry in _entries(status):
        if entry.phase is StagePhase.SUCCEEDED and entry.start_time and entry.completion_time:
            seconds[entry.stage].append((entry.completion_time - entry.start_time).total_seconds())
    return {stage: fmean(values) for stage, values in seconds.items()}


def estimate_completion(
    spec: AlignmentRunSpec, status: AlignmentRunStatus, step: Step, job: JobObservation | None, now: datetime
) -> datetime | None:
    """When the run will have ended; None until every kind of stage that remains has been seen.

    Export comes last and once, so it counts as nothing until it runs.
    """
    means = mean_stage_seconds(status)
    following = count_following(spec, step)
    first = _remaining_seconds(step, means, job, now)
    if first is None or not following.keys() <= means.keys():
        return None
    seconds = first + sum(count * means[stage] for stage, count in following.items())
    # a first step out of millions, or a status that somebody has edited, says nothing of the end
    return now + timedelta(seconds=seconds) if 0 <= seconds <= MAX_DURATION_SECONDS else None


def _remaining_seconds(
    step: Step, means: Mapping[Stage, float], job: JobObservation | None, now: datetime
) -> float | None:
    """What remains of the current stage: by its mean time where that is known, else by its own progress."""
    mean = means.get(step.stage)
    elapsed = (now - job.start_time).total_seconds() if job and job.start_time else 0.0
    fraction = job.progress.fraction if job and job.progress else None
    if mean is not None:
        return max(0.0, mean - elapsed)
    return elapsed * (1 - fraction) / fraction if fraction else None


def _entries(status: AlignmentRunStatus) -> Iterable[StageStatus]:
    yield from (entry for entry in (status.fetch, status.export) if entry is not None)
    for iteration in status.iterations:
        yield from iteration.stages
