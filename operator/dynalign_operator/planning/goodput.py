"""Goodput of a run: what its devices' time was used for. Pure; docs/goodput.md defines every figure.

An attempt is counted once, when its Job has ended or is deleted: from what was observed of its pods, and from what
these have reported themselves. The status remembers which attempts are counted.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from dynalign_contract.goodput import DeviceTime, DeviceUnit, Goodput, StageGoodput
from dynalign_contract.stages import ITERATION_STAGES, Stage, is_of_iteration
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus, StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.overrides import count_gpus, count_pods, stage_overrides
from dynalign_operator.planning.attempt_time import AttemptTime, measure_attempt
from dynalign_operator.planning.observed import JobObservation, JobPhase, Observed, PodTime


def count_goodput(
    observed: Observed, status: AlignmentRunStatus, settings: BuildSettings, deleted: Collection[str], now: datetime
) -> AlignmentRunStatus:
    """The status with every attempt counted that has ended, or that is to be deleted now (names in `deleted`)."""
    counter = _Counter(observed.run, settings, now)
    for job in sorted(observed.jobs, key=lambda job: (job.creation_time, job.attempt, job.name)):
        if job.phase is not JobPhase.ACTIVE or job.deleting or job.name in deleted:
            status = counter.count(status, job)
    return status


def iteration_seconds(iteration: IterationStatus) -> DeviceTime | None:
    """Device-seconds of an iteration's stages; None while none is counted, and for one that keeps no stages."""
    counted = [entry.goodput.seconds for entry in iteration.stages if entry.goodput is not None]
    return sum(counted, DeviceTime()) if counted else None


def count_devices(run: AlignmentRun, stage: Stage, settings: BuildSettings) -> int:
    """GPUs of each pod of a stage, by whatever name the installation or the run calls them."""
    resource = stage_overrides(run, stage, settings.pods.pod_defaults).gpu_resource
    return count_gpus(run.spec, stage, resource)


@dataclass(frozen=True)
class _Counter:
    """Counts attempts of one run."""

    run: AlignmentRun
    settings: BuildSettings
    now: datetime

    def count(self, status: AlignmentRunStatus, job: JobObservation) -> AlignmentRunStatus:
        """The status with an attempt counted, unless it is, or its stage has no entry."""
        entry = _find_stage(status, job)
        if entry is None or _is_counted(known := entry.goodput or StageGoodput(), job):
            return status
        unit = status.goodput.unit if status.goodput is not None else self._unit()
        devices = 1 if unit is DeviceUnit.POD else self._count_devices(job.stage)
        found = measure_attempt(job, self._pods_of(job), devices, self.now)
        if found is None:
            return _replace(status, job, entry.evolve(goodput=_counted(job, known.seconds)))
        seconds, wall = _joined(known.seconds, found)
        status = _replace(status, job, entry.evolve(goodput=_counted(job, seconds)))
        total = status.goodput or Goodput(unit=unit, since=found.since, until=found.until)
        change = {name: getattr(seconds, name) - getattr(known.seconds, name) for name in seconds.figures}
        return status.evolve(goodput=_extended(total, change, wall, found))

    def _unit(self) -> DeviceUnit:
        """GPUs where any stage of an iteration asks for them and there are any."""
        uses = any(self._count_devices(stage) for stage in ITERATION_STAGES)
        return DeviceUnit.GPU if uses and self.settings.has_gpus else DeviceUnit.POD

    def _count_devices(self, stage: Stage) -> int:
        return count_devices(self.run, stage, self.settings)

    def _pods_of(self, job: JobObservation) -> Iterator[PodTime]:
        """The Job's pods; where none is left, as many as it has, from when the Job is known to have run."""
        yield from job.pods
        if job.pods:
            return
        start = job.start_time
        if start is None:
            entry = _find_stage(self.run.status, job)
            if entry is None or entry.attempt != job.attempt or entry.phase is not StagePhase.RUNNING:
                return  # it was never seen to run
            start = job.creation_time
        pods = max(len(job.results), count_pods(self.run.spec, job.stage))
        yield from (PodTime(index, start) for index in range(pods))


def _is_counted(known: StageGoodput, job: JobObservation) -> bool:
    if job.attempt != known.attempt or known.job_creation_time is None:
        return job.attempt <= known.attempt
    return job.creation_time <= known.job_creation_time


def _counted(job: JobObservation, seconds: DeviceTime) -> StageGoodput:
    return StageGoodput(attempt=job.attempt, job_creation_time=job.creation_time, seconds=seconds)


def _joined(known: DeviceTime, found: AttemptTime) -> tuple[DeviceTime, float]:
    """A stage's time with one more attempt, and the wall-clock seconds of useful work that this adds.

    Useful work that the attempt has kept of earlier ones was counted as wasted until now.
    """
    seconds = known + found.seconds
    kept = min(found.preserved, seconds.wasted)
    moved = {"wasted": round(seconds.wasted - kept, 3), "useful": round(seconds.useful + kept, 3)}
    pace = found.useful_wall / found.seconds.useful if found.seconds.useful else 1.0
    return seconds.model_copy(update=moved), found.useful_wall + kept * pace


def _extended(total: Goodput, change: dict[str, float], wall: float, found: AttemptTime) -> Goodput:
    """The run's goodput with what an attempt has changed."""
    figures = {name: max(0.0, round(getattr(total.seconds, name) + value, 3)) for name, value in change.items()}
    seconds = DeviceTime(**figures)
    since, until = min(total.since, found.since), max(total.until, found.until)
    elapsed, useful = (until - since).total_seconds(), round(total.useful_wall_seconds + wall, 3)
    has_wall = elapsed > 0 and seconds.goodput is not None
    return Goodput(
        unit=total.unit,
        share=_rounded(seconds.goodput),
        wall_share=_rounded(min(1.0, useful / elapsed)) if has_wall else None,
        seconds=seconds,
        useful_wall_seconds=useful,
        since=since,
        until=until,
    )


def _find_stage(status: AlignmentRunStatus, job: JobObservation) -> StageStatus | None:
    """The entry of a Job's stage; None for stages that use no device, and for iterations that keep no stages."""
    if not is_of_iteration(job.stage):
        return None
    stages = next((entry.stages for entry in status.iterations if entry.index == job.iteration), ())
    return next((entry for entry in stages if entry.stage is job.stage), None)


def _replace(status: AlignmentRunStatus, job: JobObservation, entry: StageStatus) -> AlignmentRunStatus:
    iterations = tuple(
        iteration.evolve(stages=tuple(entry if one.stage is entry.stage else one for one in iteration.stages))
        if iteration.index == job.iteration
        else iteration
        for iteration in status.iterations
    )
    return status.evolve(iterations=iterations)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
