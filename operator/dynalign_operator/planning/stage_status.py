"""Reading and replacing one stage's entry in the status."""

from collections.abc import Iterable
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_operator.api.status import (
    AlignmentRunStatus,
    ConditionType,
    IterationStatus,
    Phase,
    StagePhase,
    StageStatus,
)
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import JobObservation, JobPhase, Step

WHOLE_ITERATIONS: Final = 10
"""Iterations that keep their stages in the status; of older ones the numbers and the artifacts in use remain."""


def stage_status(status: AlignmentRunStatus, step: Step) -> StageStatus:
    """A step's entry; a fresh one where there is none."""
    fresh = StageStatus(stage=step.stage)
    if step.stage is Stage.FETCH:
        return status.fetch or fresh
    if step.stage is Stage.EXPORT:
        return status.export or fresh
    stages = next((entry.stages for entry in status.iterations if entry.index == step.iteration), ())
    return next((entry for entry in stages if entry.stage is step.stage), fresh)


def iteration_status(status: AlignmentRunStatus, index: int) -> IterationStatus:
    """An iteration's entry; a fresh one where there is none."""
    return next((entry for entry in status.iterations if entry.index == index), IterationStatus(index=index))


def separate_stages(iteration: IterationStatus) -> tuple[StageStatus, ...]:
    """The entries of an iteration whose times and figures add up: a rollout that has succeeded is its stages."""
    return tuple(
        entry
        for entry in iteration.stages
        if entry.stage is not Stage.ROLLOUT or entry.phase is not StagePhase.SUCCEEDED
    )


def with_stage(status: AlignmentRunStatus, step: Step, entry: StageStatus) -> AlignmentRunStatus:
    """The status with a step's entry replaced or added.

    What an iteration adds makes an earlier export out of date: its entry goes back to the start, under a new attempt.
    """
    if step.stage is Stage.FETCH:
        return status.evolve(fetch=entry)
    if step.iteration is None:
        return status.evolve(export=entry)
    iteration = iteration_status(status, step.iteration)
    stages = [*(other for other in iteration.stages if other.stage is not entry.stage), entry]
    stages.sort(key=lambda stage: list(Stage).index(stage.stage))
    changed = with_iteration(status, iteration.evolve(stages=tuple(stages)))
    export = changed.export
    if export is None or not (export.job or export.artifact):
        return changed
    return changed.evolve(export=next_attempt(export.evolve(failures=0, disruptions=0, start_time=None)))


def with_iteration(status: AlignmentRunStatus, iteration: IterationStatus) -> AlignmentRunStatus:
    """The status with an iteration replaced or added, and those that have grown old shortened."""
    entries = {entry.index: entry for entry in status.iterations} | {iteration.index: iteration}
    ordered = [entries[index] for index in sorted(entries)]
    old, recent = ordered[:-WHOLE_ITERATIONS], ordered[-WHOLE_ITERATIONS:]
    shortened = [entry.evolve(stages=()) if entry.stages else entry for entry in old]
    return status.evolve(iterations=(*shortened, *recent))


def outgrown(jobs: Iterable[JobObservation], status: AlignmentRunStatus) -> list[JobObservation]:
    """Ended Jobs of iterations that the status has shortened: they, their pods and ConfigMaps would only pile up."""
    oldest = min((entry.index for entry in status.iterations if entry.stages), default=0)
    return [
        job for job in jobs if job.iteration is not None and job.iteration < oldest and job.phase is not JobPhase.ACTIVE
    ]


def next_attempt(stage: StageStatus, attempt: int | None = None) -> StageStatus:
    """The entry before its next attempt (or the given one): no Job yet; failures and the first start are kept."""
    return stage.evolve(
        phase=StagePhase.PENDING,
        attempt=attempt or stage.attempt + 1,
        job="",
        part=None,
        completion_time=None,
        artifact=None,
        metrics=(),
    )


def seconds_of(stage: StageStatus) -> float | None:
    """Duration from a stage's first start to its end; None before that."""
    if stage.start_time is None or stage.completion_time is None:
        return None
    return (stage.completion_time - stage.start_time).total_seconds()


def resume_failed_run(status: AlignmentRunStatus, step: Step | None) -> AlignmentRunStatus:
    """A failed run's status, ready to continue: the failed stage counts its failures anew, the run its deadline.

    After damage every finished stage is verified again: intact artifacts are kept, missing ones are made anew.
    """
    if any(c.type is ConditionType.STALLED and c.reason == reasons.CORRUPT_ARTIFACT for c in status.conditions):
        status = _mark_for_verification(status)
    status = status.evolve(phase=Phase.PENDING, start_time=None, completion_time=None)
    if step is None:
        return status
    entry = stage_status(status, step)
    if entry.phase is StagePhase.FAILED or entry.job:
        entry = next_attempt(entry)
    return with_stage(status, step, entry.evolve(failures=0, disruptions=0, message=""))


def _mark_for_verification(status: AlignmentRunStatus) -> AlignmentRunStatus:
    """The status in which every finished stage has to run again; iterations that were shortened stay as they are."""

    def again(stage: StageStatus) -> StageStatus:
        return stage if stage.artifact is None else next_attempt(stage).evolve(verify_again=True, failures=0)

    iterations = tuple(entry.evolve(stages=tuple(map(again, entry.stages))) for entry in status.iterations)
    fetch = None if status.fetch is None else again(status.fetch)
    return status.evolve(fetch=fetch, iterations=iterations)
