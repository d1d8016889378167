"""Device time of one attempt of a stage, sorted by what its pods report. Pure; docs/goodput.md defines every figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dynalign_contract.goodput import DeviceTime
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.planning.observed import JobObservation, JobPhase, PodTime


@dataclass(frozen=True)
class AttemptTime:
    """What one attempt has used its devices for."""

    seconds: DeviceTime
    preserved: float
    """Useful device-seconds of earlier attempts that are in its artifact."""
    useful_wall: float
    """Wall-clock seconds of its useful work."""
    since: datetime
    until: datetime


def measure_attempt(job: JobObservation, pods: Iterable[PodTime], devices: int, now: datetime) -> AttemptTime | None:
    """Time of an attempt with `devices` in each of its pods; None if none of its pods has started.

    A pod without an end is counted until the end of the Job, or until `now`.
    """
    ended = min(job.completion_time or now, now)
    spans = [(pod, max(pod.start_time, pod.end_time or ended)) for pod in sorted(pods, key=lambda pod: pod.start_time)]
    if not spans:
        return None
    latest = {pod.index: pod for pod, _ in spans}
    total, preserved = DeviceTime(), 0.0
    for pod, end in spans:
        result = _result_of(job, pod.index) if latest[pod.index] is pod else None
        seconds = (end - pod.start_time).total_seconds() * devices
        total += _split(job.stage, seconds, devices, result)
        preserved += _preserved(job.stage, result) * devices
    wall = _union((pod.start_time, end) for pod, end in spans)
    share = total.useful / total.reserved if total.reserved else 0.0
    return AttemptTime(total, preserved, wall * share, spans[0][0].start_time, max(end for _, end in spans))


def _split(stage: Stage, seconds: float, devices: int, result: StageResult | None) -> DeviceTime:
    """The device-seconds of one pod, sorted by what it reports; `result` is None if it did not lead to an artifact."""
    if result is None:
        return DeviceTime(reserved=seconds, wasted=seconds)
    if result.outcome is Outcome.SKIPPED:  # its metrics are those of the attempt that made the artifact
        return DeviceTime(reserved=seconds, starting=seconds)
    metrics, values = STAGE_METRICS[stage], read_metrics(stage, result.metrics)
    useful, starting = values.get(metrics.useful_seconds), values.get(metrics.start_seconds)
    if useful is None or (starting is None and useful > 0):
        return DeviceTime(reserved=seconds, unknown=seconds)
    useful = _within(useful * devices, seconds)
    starting = seconds if starting is None else _within(starting * devices, seconds - useful)
    return DeviceTime(reserved=seconds, useful=useful, starting=starting, waiting=max(0.0, seconds - useful - starting))


def _preserved(stage: Stage, result: StageResult | None) -> float:
    if result is None or result.outcome is Outcome.SKIPPED:
        return 0.0
    return max(0.0, read_metrics(stage, result.metrics).get(STAGE_METRICS[stage].preserved_seconds, 0.0))


def _within(value: float, limit: float) -> float:
    """A measured time within what was reserved: the clocks of a pod and of its observer are not the same."""
    return min(max(0.0, value), max(0.0, limit))


def _result_of(job: JobObservation, index: int) -> StageResult | None:
    """The result of the pod that has ended an index well; None if it did not. A gang has one result for all."""
    is_gang = job.stage is Stage.TRAIN
    if is_gang and job.phase is not JobPhase.SUCCEEDED:
        return None
    place = 0 if is_gang else index
    result = job.results[place] if place < len(job.results) else None
    return None if result is None or result.outcome is Outcome.FAILED or result.artifact is None else result


def _union(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds that at least one of the spans covers; they are in order of their starts."""
    seconds, reached = 0.0, None
    for start, end in spans:
        begin = start if reached is None else max(start, reached)
        seconds += max(0.0, (end - begin).total_seconds())
        reached = end if reached is None else max(reached, end)
    return seconds
