"""What a report is told about a run: its specification and status as the report's own values. Pure."""

from collections.abc import Iterator
from typing import Final

from dynalign_contract.run_facts import ConditionFacts, RunFacts, StageFacts
from dynalign_operator.api.status import AlignmentRunStatus, BestIteration, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.stage_status import seconds_of, separate_stages
from dynalign_operator.runfile.yaml_text import to_yaml

_LONGEST_CONFIGURATION: Final = 150_000
_LONGEST_CONDITION: Final = 8_000
_LONGEST_MESSAGE: Final = 2_000
_CUT: Final = "\n... cut off here"


def facts_of(run: AlignmentRun) -> RunFacts:
    """The run's own account of itself; the artifacts in its folder add the rest."""
    status = run.status
    specification = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return RunFacts(
        name=run.metadata.name,
        phase=str(status.phase),
        progress=status.progress,
        iterations=run.spec.iterations,
        conditions=tuple(
            ConditionFacts(type=str(one.type), status=one.status, reason=one.reason, message=one.message)
            for one in status.conditions
        ),
        best="" if status.best is None else name_best(status.best),
        configuration=to_yaml([specification]),
        published=tuple(place.uri for place in status.published),
        stages=tuple(_stages(status)),
        goodput=status.goodput,
    )


def brief_facts_of(run: AlignmentRun) -> RunFacts:
    """The run's account of itself for a ConfigMap, which holds 1 MiB: long texts are cut.

    Metrics of a stage that has an artifact are left out, because its manifest has them.
    """
    facts = facts_of(run)
    conditions = tuple(
        one.model_copy(update={"message": _cut(one.message, _LONGEST_CONDITION)}) for one in facts.conditions
    )
    stages = tuple(
        entry.model_copy(
            update={
                "message": _cut(entry.message, _LONGEST_MESSAGE),
                "metrics": () if entry.digest else entry.metrics,
            }
        )
        for entry in facts.stages
    )
    configuration = _cut(facts.configuration, _LONGEST_CONFIGURATION)
    return facts.model_copy(update={"conditions": conditions, "stages": stages, "configuration": configuration})


def name_best(best: BestIteration) -> str:
    """`iteration 3 (highest held-out win rate ...)`."""
    name = "the base model" if best.iteration is None else f"iteration {best.iteration}"
    return f"{name} ({best.reason})"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


def _stages(status: AlignmentRunStatus) -> Iterator[StageFacts]:
    if status.fetch is not None:
        yield _stage(status.fetch, None)
    for iteration in status.iterations:
        for entry in separate_stages(iteration):
            yield _stage(entry, iteration.index)
    if status.export is not None:
        yield _stage(status.export, None)


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
