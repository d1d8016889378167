"""Spans of a run that have ended between two statuses, with the times that the status has. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus, Phase, StagePhase, StageStatus
from dynalign_operator.api.trace_ids import iteration_span_id, run_span_id, stage_span_id
from dynalign_operator.api.v1alpha1 import AlignmentRun

Value = str | int | float


@dataclass(frozen=True)
class SpanRecord:
    """A span that has ended."""

    name: str
    span_id: int
    parent_id: int | None
    """None for the root."""
    start: datetime
    end: datetime
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    """Why it failed; empty where it did not."""


def ended_spans(
    run: AlignmentRun, before: AlignmentRunStatus, after: AlignmentRunStatus, now: datetime
) -> tuple[SpanRecord, ...]:
    """Attempts of stages, iterations and the run itself that are over in `after` and were not in `before`.

    `now` is the end of an attempt whose own end the status has not kept: the next one has begun at once.
    """
    return (*_stages(run, before, after, now), *_iterations(run, before, after), *_whole(run, before, after))


def _stages(
    run: AlignmentRun, before: AlignmentRunStatus, after: AlignmentRunStatus, now: datetime
) -> Iterator[SpanRecord]:
    known = dict(_entries(before))
    for (iteration, _), entry in _entries(after):
        earlier = known.get((iteration, entry.stage))
        is_known = earlier is not None and _is_over(earlier)
        if earlier is not None and not is_known and earlier.job and earlier.attempt < entry.attempt:
            yield _attempt(run, iteration, earlier, now, entry.message or "ended before it was done")
        if _is_over(entry) and not (is_known and earlier is not None and earlier.attempt == entry.attempt):
            failed = entry.phase is StagePhase.FAILED
            error = (entry.message or "failed") if failed else ""
            yield _attempt(run, iteration, entry, entry.completion_time or now, error)


def _attempt(run: AlignmentRun, iteration: int | None, entry: StageStatus, end: datetime, error: str) -> SpanRecord:
    attributes: dict[str, Value] = {"dynalign.stage": str(entry.stage), "dynalign.attempt": entry.attempt}
    if iteration is not None:
        attributes["dynalign.iteration"] = iteration
    if entry.job:
        attributes["k8s.job.name"] = entry.job
    return SpanRecord(
        name=str(entry.stage),
        span_id=stage_span_id(run, entry.stage, iteration, entry.attempt),
        parent_id=run_span_id(run) if iteration is None else iteration_span_id(run, iteration),
        start=min(entry.start_time or end, end),
        end=end,
        attributes=attributes,
        error=error,
    )


def _iterations(run: AlignmentRun, before: AlignmentRunStatus, after: AlignmentRunStatus) -> Iterator[SpanRecord]:
    for iteration in after.iterations:
        was_open = _is_open(before, iteration.index) or iteration.index not in {i.index for i in before.iterations}
        times = _span_of(iteration)
        if not was_open or _is_open(after, iteration.index) or times is None:
            continue
        numbers = {"reward": iteration.reward, "win_rate": iteration.win_rate.value if iteration.win_rate else None}
        known = {f"dynalign.{name}": value for name, value in numbers.items() if value is not None}
        yield SpanRecord(
            name=f"iteration {iteration.index}",
            span_id=iteration_span_id(run, iteration.index),
            parent_id=run_span_id(run),
            start=times[0],
            end=times[1],
            attributes={"dynalign.iteration": iteration.index, **known},
        )


def _whole(run: AlignmentRun, before: AlignmentRunStatus, after: AlignmentRunStatus) -> Iterator[SpanRecord]:
    ends = (Phase.SUCCEEDED, Phase.FAILED)
    if after.phase not in ends or before.phase in ends or after.completion_time is None:
        return
    first = after.fetch.start_time if after.fetch is not None else None
    error = next((c.message for c in after.conditions if c.type == "Stalled" and c.status == "True"), "failed")
    yield SpanRecord(
        name=f"run {run.metadata.name}",
        span_id=run_span_id(run),
        parent_id=None,
        start=min(first or after.start_time or after.completion_time, after.completion_time),
        end=after.completion_time,
        error=error if after.phase is Phase.FAILED else "",
    )


def _entries(status: AlignmentRunStatus) -> Iterator[tuple[tuple[int | None, Stage], StageStatus]]:
    for entry in (status.fetch, status.export):
        if entry is not None:
            yield (None, entry.stage), entry
    for iteration in status.iterations:
        for entry in iteration.stages:
            yield (iteration.index, entry.stage), entry


def _is_over(entry: StageStatus) -> bool:
    return entry.phase in (StagePhase.SUCCEEDED, StagePhase.FAILED)


def _is_open(status: AlignmentRunStatus, iteration: int) -> bool:
    """Whether the run is at this iteration. A run that fails ends it; should it go on, it ends again, under its id."""
    is_there = status.iteration == iteration and status.stage not in (None, Stage.EXPORT)
    return is_there and status.phase is not Phase.FAILED


def _span_of(iteration: IterationStatus) -> tuple[datetime, datetime] | None:
    starts = [entry.start_time for entry in iteration.stages if entry.start_time is not None]
    ends = [entry.completion_time for entry in iteration.stages if entry.completion_time is not None]
    return (min(starts), max(*ends, min(starts))) if starts and ends else None
