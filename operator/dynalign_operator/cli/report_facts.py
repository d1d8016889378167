"""What a report is told of a run: its specification and status as the report's own values."""

from collections.abc import Iterator

from dynalign_operator.api.status import StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.tables import describe_best, seconds_of
from dynalign_report.facts import ConditionFacts, RunFacts, StageFacts


def facts_of(run: AlignmentRun) -> RunFacts:
    """The run's own account of itself; the artifacts in its folder add the rest."""
    from dynalign_operator.cli.render import to_yaml

    status = run.status
    specification = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return RunFacts(
        name=run.metadata.name,
        phase=str(status.phase),
        progress=status.progress,
        iterations=run.spec.iterations,
        conditions=tuple(
            ConditionFacts(str(one.type), one.status, one.reason, one.message) for one in status.conditions
        ),
        best=describe_best(status.best).removeprefix("; best is "),
        configuration=to_yaml([specification]),
        stages=tuple(_stages(run)),
    )


def _stages(run: AlignmentRun) -> Iterator[StageFacts]:
    if run.status.fetch is not None:
        yield _stage(run.status.fetch, None)
    for iteration in run.status.iterations:
        for entry in iteration.stages:
            yield _stage(entry, iteration.index)
    if run.status.export is not None:
        yield _stage(run.status.export, None)


def _stage(entry: StageStatus, iteration: int | None) -> StageFacts:
    return StageFacts(
        stage=entry.stage,
        iteration=iteration,
        phase=str(entry.phase),
        metrics=entry.metrics,
        seconds=seconds_of(entry),
        attempt=entry.attempt,
        message=entry.message,
        digest=entry.artifact.digest if entry.artifact else "",
        bytes=entry.artifact.bytes if entry.artifact else 0,
        rows=entry.artifact.rows if entry.artifact else 0,
    )
