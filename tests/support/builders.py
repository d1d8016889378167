"""Fluent builders: `a_run().with_iterations(3)`, `a_job(Stage.TRAIN, 2).failed(137)`. Each call returns a new value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dynalign_contract.result import ArtifactRef, Metric, Outcome, ResultError, StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.names import job_name
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, JobProgress, Step

T0 = datetime(2026, 1, 1, tzinfo=UTC)
"""When everything in the tests begins."""

NOT_GIVEN: Any = object()


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def an_artifact(path: str = "x", *, rows: int = 4, digit: str = "a") -> ArtifactRef:
    return ArtifactRef(path=path, digest="sha256:" + digit * 64, bytes=10, rows=rows)


def a_result(*, rows: int = 4, path: str = "x", digit: str = "a", **metrics: float | None) -> StageResult:
    return StageResult(
        outcome=Outcome.SUCCEEDED,
        artifact=an_artifact(path, rows=rows, digit=digit),
        metrics=tuple(Metric(name=name, value=value) for name, value in metrics.items()),
    )


def a_failure(code: int, message: str, reason: str = "SomeReason") -> StageResult:
    return StageResult(outcome=Outcome.FAILED, exit_code=code, error=ResultError(reason=reason, message=message))


@dataclass(frozen=True)
class RunBuilder:
    """An AlignmentRun in the making, of separate Jobs; the spec is what a user would write."""

    spec: dict[str, Any] = field(
        default_factory=lambda: {"model": {"uri": "bundled://tiny"}, "iterations": 2, "rollout": "Separate"}
    )
    metadata: dict[str, Any] = field(default_factory=lambda: {"name": "r", "namespace": "team"})
    status: Any = NOT_GIVEN

    def with_spec(self, **fields: Any) -> RunBuilder:
        """Fields in their YAML names, merged one level deep."""
        merged = {
            name: {**self.spec.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in fields.items()
        }
        return replace(self, spec={**self.spec, **merged})

    def with_iterations(self, count: int) -> RunBuilder:
        return self.with_spec(iterations=count)

    def with_shards(self, count: int) -> RunBuilder:
        return self.with_spec(generation={"shards": count})

    def with_policy(self, **fields: Any) -> RunBuilder:
        return self.with_spec(policy=fields)

    def named(self, name: str) -> RunBuilder:
        return replace(self, metadata={**self.metadata, "name": name})

    def stored(self) -> RunBuilder:
        """As an API server would return it."""
        return replace(self, metadata={**self.metadata, "uid": "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"})

    def of_generation(self, generation: int) -> RunBuilder:
        return replace(self, metadata={**self.metadata, "generation": generation})

    def suspended(self) -> RunBuilder:
        return self.with_spec(suspend=True)

    def with_status(self, status: Any) -> RunBuilder:
        return replace(self, status=status)

    def build(self) -> AlignmentRun:
        run = AlignmentRun.model_validate(
            {
                "apiVersion": "dynalign.io/v1alpha1",
                "kind": "AlignmentRun",
                "metadata": self.metadata,
                "spec": self.spec,
            }
        )
        return run if self.status is NOT_GIVEN else run.model_copy(update={"status": self.status})


def a_run() -> RunBuilder:
    return RunBuilder()


@dataclass(frozen=True)
class JobBuilder:
    """A Job as it is observed: pending at first."""

    job: JobObservation

    def of_attempt(self, attempt: int, run: str = "r") -> JobBuilder:
        return JobBuilder(replace(self.job, attempt=attempt, name=job_name(run, self.job.step, attempt)))

    def created(self, at: datetime) -> JobBuilder:
        return JobBuilder(replace(self.job, creation_time=at))

    def running(self, since: datetime = T0, progress: tuple[float, float] | None = None) -> JobBuilder:
        observed = JobProgress(*progress) if progress else None
        return JobBuilder(replace(self.job, start_time=since, progress=observed))

    def last_moved(self, at: datetime) -> JobBuilder:
        return JobBuilder(replace(self.job, last_progress_time=at))

    def queued(self) -> JobBuilder:
        return JobBuilder(replace(self.job, suspended=True))

    def deleting(self) -> JobBuilder:
        return JobBuilder(replace(self.job, deleting=True))

    def saying(self, message: str) -> JobBuilder:
        return JobBuilder(replace(self.job, message=message))

    def succeeded(self, *results: StageResult | None, at: datetime = T0) -> JobBuilder:
        return JobBuilder(
            replace(
                self.job,
                phase=JobPhase.SUCCEEDED,
                results=results or (a_result(),),
                exit_code=0,
                start_time=self.job.start_time or self.job.creation_time,
                completion_time=at,
            )
        )

    def failed(self, code: int | None, *results: StageResult | None, at: datetime = T0) -> JobBuilder:
        return JobBuilder(
            replace(
                self.job,
                phase=JobPhase.FAILED,
                results=results or (None,),
                exit_code=code,
                start_time=self.job.start_time or self.job.creation_time,
                completion_time=at,
            )
        )

    def disrupted(self, at: datetime = T0) -> JobBuilder:
        return JobBuilder(replace(self.failed(None, at=at).job, reason=DISRUPTED))

    def build(self) -> JobObservation:
        return self.job


def a_job(stage: Stage, iteration: int | None = None, run: str = "r") -> JobBuilder:
    step = Step(stage, iteration)
    return JobBuilder(
        JobObservation(
            name=job_name(run, step, 1), stage=stage, iteration=iteration, attempt=1, creation_time=T0, exit_code=None
        )
    )
