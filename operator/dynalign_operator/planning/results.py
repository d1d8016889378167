"""Conversion of a finished Job's results into status: artifacts and metrics of its shards are combined."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from dynalign_contract.combining import combine_metrics
from dynalign_contract.errors import CorruptArtifactError, MemoryFullError
from dynalign_contract.layout import MANIFEST, stage_folder
from dynalign_contract.metrics import STAGE_METRICS
from dynalign_contract.result import (
    MAX_RESULT_BYTES,
    ArtifactRef,
    Metric,
    Outcome,
    StageResult,
    combine_artifacts,
)
from dynalign_contract.stages import (
    JOINED_STAGES,
    ROLLOUT_STAGES,
    SHARDED_STAGES,
    Stage,
    iteration_of_part,
    stages_of_job,
)
from dynalign_operator.api.durations import after
from dynalign_operator.api.status import AlignmentRunStatus, StagePhase, StageStatus
from dynalign_operator.planning import reasons
from dynalign_operator.planning.iteration_numbers import keep_numbers
from dynalign_operator.planning.observed import JobObservation, JobPhase, Step
from dynalign_operator.planning.stage_status import (
    iteration_status,
    next_attempt,
    stage_status,
    with_iteration,
    with_stage,
)

_NAMED: Final = {
    CorruptArtifactError.reason: reasons.CORRUPT_ARTIFACT,
    MemoryFullError.reason: reasons.OUT_OF_MEMORY,
}


def artifact_of(job: JobObservation) -> ArtifactRef | None:
    """The artifact that a Job left, shards together; None when a result is missing, unreadable or tells of failure."""
    results = job.results if job.stage in SHARDED_STAGES else job.results[:1]
    whole = [r for r in results if r is not None and r.outcome is not Outcome.FAILED and r.artifact]
    if not whole or len(whole) != len(results) or (job.stage is Stage.ROLLOUT and not _has_parts(job, whole)):
        return None
    return _combined(job.stage, job.iteration, whole)


def _has_parts(job: JobObservation, results: Sequence[StageResult]) -> bool:
    """Whether every shard of a rollout names its parts, and shares of these were joined."""
    joined = [stage for stage in JOINED_STAGES if any(stage in result.parts for result in results)]
    return all(result.parts for result in results) and all(
        _combined(stage, iteration_of_part(stage, job.iteration or 0), _of_part(stage, results)) for stage in joined
    )


def _of_part(stage: Stage, results: Sequence[StageResult]) -> list[StageResult]:
    """The results of one part of a rollout, as those of a Job of its own."""
    return [result.parts[stage].whole() for result in results if stage in result.parts]


def _combined(stage: Stage, iteration: int | None, results: Sequence[StageResult]) -> ArtifactRef | None:
    """The artifact of a stage, its shards together; None where shares were to be joined and are not."""
    artifacts = [result.artifact for result in results if result.artifact is not None]
    if len(artifacts) <= 1:
        return artifacts[0] if artifacts else None
    if stage in JOINED_STAGES:
        joined = _find_joined(stage, iteration, results)
        return None if joined is None else joined.artifact
    return combine_artifacts(stage_folder(stage, iteration), artifacts)


def _metrics_of(stage: Stage, iteration: int | None, results: Sequence[StageResult]) -> tuple[Metric, ...]:
    """The metrics of a stage, its shards together.

    Where shares were joined they are those of the joined artifact; times each pod reports for itself.
    """
    joined = _find_joined(stage, iteration, results) if stage in JOINED_STAGES else None
    if joined is None:
        return combine_metrics(stage, results)
    if joined.outcome is Outcome.SKIPPED:  # what the artifact's manifest says, times of all shards among it
        return joined.metrics
    names = {metric.name for metric in STAGE_METRICS[stage].times()}
    made = [result for result in results if result is joined or result.artifact != joined.artifact]
    times = [metric for metric in combine_metrics(stage, made) if metric.name in names]
    return (*(metric for metric in joined.metrics if metric.name not in names), *times)


def _find_joined(stage: Stage, iteration: int | None, results: Sequence[StageResult]) -> StageResult | None:
    """The result of the pod that has joined the shares of all, else of one that has found them joined."""
    folder = stage_folder(stage, iteration)
    found = [result for result in results if result.artifact is not None and result.artifact.path == folder]
    return min(found, key=lambda result: result.outcome is Outcome.SKIPPED, default=None)


def failure_message(job: JobObservation) -> str:
    """Why a Job failed: the stage's own sentence, else what the cluster says, else its exit code."""
    own = next((r.error.message for r in job.results if r is not None and r.error is not None), "")
    if own or job.message:
        return (own or job.message)[:4096]
    is_joined = not JOINED_STAGES.isdisjoint(stages_of_job(job.stage))
    if job.phase is JobPhase.SUCCEEDED and is_joined and all(job.results):
        return f"Job {job.name}: every pod has left its share, and none of them has joined these. The shares are kept."
    if job.exit_code is None or job.exit_code == 0:
        return f"Job {job.name} ended without a result that can be read; its log tells more."
    signal = f" (signal {job.exit_code - 128})" if 128 < job.exit_code < 192 else ""
    return f"Job {job.name} ended with exit code {job.exit_code}{signal} and left no result; its log tells more."


def warnings_of(job: JobObservation) -> tuple[str, ...]:
    """The warnings of a Job's results, each once: shards often report the same. The last says what had no room."""
    results = [result for result in job.results if result is not None]
    omitted = dict.fromkeys(name for result in results for name in result.omitted)
    warnings = dict.fromkeys(text for result in results for text in result.warnings)
    return (*warnings, explain_omitted(omitted)) if omitted else tuple(warnings)


def explain_omitted(names: Iterable[str]) -> str:
    """What a result had no room for, and where it can be read."""
    return (
        f"the result of {MAX_RESULT_BYTES} bytes, all that Kubernetes keeps, has no room for {', '.join(names)}. "
        f"{MANIFEST} of the artifact has all metrics, and the log has all warnings."
    )


def named_reason(job: JobObservation) -> str | None:
    """The reason that the stage itself gives for its end, where the run's condition has one of that name."""
    errors = (result.error for result in job.results if result is not None)
    given = {error.reason for error in errors if error is not None}
    return next((_NAMED[reason] for reason in _NAMED if reason in given), None)


def absorb_success(
    status: AlignmentRunStatus, job: JobObservation, artifact: ArtifactRef, now: datetime
) -> AlignmentRunStatus:
    """The status after a Job's success: artifact, metrics, and the iteration's numbers drawn from them."""
    step = job.step
    results = [result for result in job.results if result is not None]
    entry = stage_status(status, step)
    done = StageStatus(
        stage=step.stage,
        phase=StagePhase.SUCCEEDED,
        attempt=job.attempt,
        failures=entry.failures,
        job=job.name,
        start_time=entry.start_time or job.start_time or job.creation_time,
        completion_time=job.completion_time or now,
        artifact=None if step.stage is Stage.ROLLOUT else artifact,  # that of judge, which has an entry of its own
        metrics=_metrics_of(step.stage, step.iteration, results),
        goodput=entry.goodput,
    )
    if step.stage is Stage.ROLLOUT:
        ended_early = not any(set(result.parts) & set(ROLLOUT_STAGES) for result in results)
        entry = next_attempt(done).evolve(start_time=None) if ended_early else done
        return _with_parts(with_stage(status, step, entry), job, results, done)
    status = with_stage(status, step, done)
    if (training := next((result.training for result in results if result.training), None)) is not None:
        status = status.evolve(training=training)
    if step.stage is Stage.EXPORT:
        status = status.evolve(published=tuple(place for result in results for place in result.published))
    if step.iteration is None:
        return status
    return with_iteration(status, keep_numbers(iteration_status(status, step.iteration), done))


def _with_parts(
    status: AlignmentRunStatus, job: JobObservation, results: Sequence[StageResult], rollout: StageStatus
) -> AlignmentRunStatus:
    """The status with an entry for each stage of a rollout, as if each had had a Job of its own."""
    ended = rollout.completion_time or job.creation_time
    start = min(ended, job.start_time or rollout.start_time or ended)
    for stage in dict.fromkeys(stage for result in results for stage in result.parts):
        index = iteration_of_part(stage, job.iteration or 0)
        step = Step(stage, index)
        parts = _of_part(stage, results)
        end = min(ended, after(start, timedelta(seconds=max(part.seconds for part in parts))))
        done = StageStatus(
            stage=stage,
            phase=StagePhase.SUCCEEDED,
            attempt=stage_status(status, step).attempt,
            job=job.name,
            start_time=start,
            completion_time=end,
            artifact=_combined(stage, index, parts),
            metrics=_metrics_of(stage, index, parts),
        )
        start = end
        status = with_stage(status, step, done)
        status = with_iteration(status, keep_numbers(iteration_status(status, index), done))
    return status
