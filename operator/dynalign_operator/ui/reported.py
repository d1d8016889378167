"""A run's numbers as the report's own values, so that page and report show the same plots. Pure."""

from collections.abc import Iterator
from typing import Final

from dynalign_contract.metrics import find_definition
from dynalign_contract.plain_text import reveal_hidden
from dynalign_contract.result import Metric
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import IterationStatus, ReportStatus, StagePhase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.run_source import RunSnapshot
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.reporting import describe_scope
from dynalign_operator.planning.run_facts import facts_of
from dynalign_operator.ui.models import ReportView
from dynalign_report.facts import ReportedRun, StageFacts

_MEASURED: Final = (Stage.JUDGE, Stage.EVALUATE)
"""Stages whose numbers an iteration keeps when the status drops its stages."""


def build_reported(run: AlignmentRun, stages: tuple[StageFacts, ...] = ()) -> ReportedRun:
    """The run as its status tells it; `stages` are those of its folder, where that is at hand."""
    facts = facts_of(run)
    known = stages or facts.stages
    seen = {entry.iteration for entry in known}
    kept = tuple(entry for one in run.status.iterations if one.index not in seen for entry in _kept(one))
    return ReportedRun(facts.name, facts, (*kept, *known))


def _kept(iteration: IterationStatus) -> Iterator[StageFacts]:
    """The numbers of an iteration whose stages the status no longer holds."""
    for stage in _MEASURED:
        metrics = tuple(
            Metric(name=one.name, value=value)
            for one, value in numbers_of(iteration).items()
            if find_definition(stage, one.name) == one
        )
        if metrics:
            yield StageFacts(stage=stage, iteration=iteration.index, phase="Succeeded", metrics=metrics)


def report_in_cluster(snapshot: RunSnapshot) -> ReportView:
    """Where the report of a run of a cluster is: on its volume, which nobody but its pods mounts."""
    written = snapshot.run.status.report
    if written is None or not written.path:
        return ReportView(note="There is no report yet; one is written after every iteration and at the run's end.")
    covered = "" if written.iteration is None else f", to iteration {written.iteration},"
    return ReportView(note=f"Its report{covered} is {written.path} on {snapshot.place.files}: copy it from there.")


def with_written(view: ReportView, written: ReportStatus | None) -> ReportView:
    """The report with what the run itself says of writing it."""
    if written is None:
        return view
    scope, is_trouble, ended = describe_scope(written), written.phase is StagePhase.FAILED, written.completion_time
    match written.phase:
        case StagePhase.SUCCEEDED:
            missing = f" Not in it: {written.message}" if written.message else ""
            sentence = f"The run's report covers {scope}.{missing}"
        case StagePhase.FAILED:
            sentence = f"The report of {scope} was not written: {written.message}"
        case _:
            sentence, ended = f"The report of {scope} is being written.", None
    return view.model_copy(update={"sentence": reveal_hidden(sentence), "ended_at": ended, "is_trouble": is_trouble})
