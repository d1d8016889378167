"""The page of one run, from what was seen of it. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from dynalign_contract.metrics import EvaluateMetrics, TrainMetrics
from dynalign_operator.api.status import Condition, IterationStatus, StageStatus
from dynalign_operator.cli.description import is_trouble
from dynalign_operator.cli.situation import explain_situation
from dynalign_operator.cli.tables import describe_capability, describe_win_rate
from dynalign_operator.clusters.run_source import ListedRun, RunEvent, RunSnapshot
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.plan import EventType
from dynalign_operator.planning.shown_stages import shown_stages
from dynalign_operator.planning.stage_status import seconds_of
from dynalign_operator.ui.approvals import build_approval
from dynalign_operator.ui.changes import build_actions
from dynalign_operator.ui.commands import build_commands
from dynalign_operator.ui.headlines import headline_of
from dynalign_operator.ui.models import (
    ConditionView,
    EventView,
    FindingView,
    IterationView,
    ReportView,
    RunPage,
    StageView,
)
from dynalign_operator.ui.reported import build_reported, with_written
from dynalign_report.chart_data import chart_data
from dynalign_report.charts import Section, build_charts
from dynalign_report.facts import ReportedRun, StageFacts
from dynalign_report.findings import Finding, build_findings

_NONE: Final = "-"
_LATEST_EVENTS: Final = 50


@dataclass(frozen=True)
class Seen:
    """What the rim has found out about a run."""

    listed: ListedRun
    snapshot: RunSnapshot
    events: tuple[RunEvent, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    """Stages as the folder of the run has them; empty for a run of a cluster."""
    report: ReportView = field(default_factory=ReportView)
    notes: tuple[str, ...] = ()
    """What could not be looked at."""
    sample: str = ""
    """A sample of what awaits approval, where its files are at hand."""


def build_page(seen: Seen, now: datetime) -> RunPage:
    """The whole page but the logs; times of sentences are those of `now`'s zone."""
    run, snapshot = seen.snapshot.run, seen.snapshot
    said = explain_situation(snapshot, seen.events, now)
    reported = build_reported(run, seen.stages)
    return RunPage(
        **headline_of(seen.listed),
        place=snapshot.place.title,
        files=snapshot.place.files,
        does=tuple(said.does),
        waits=tuple(said.waits),
        to_do=tuple(said.to_do),
        findings=tuple(map(_finding, build_findings(reported))),
        best=reported.facts.best,
        charts=_charts(reported),
        fetch=_stage(run.status.fetch) if run.status.fetch is not None else None,
        iterations=tuple(_iteration(seen, one) for one in reversed(run.status.iterations)),
        export=_stage(run.status.export) if run.status.export is not None else None,
        conditions=tuple(map(_condition, run.status.conditions)),
        events=tuple(map(_event, reversed(seen.events[-_LATEST_EVENTS:]))),
        commands=build_commands(snapshot),
        actions=build_actions(snapshot),
        approval=build_approval(snapshot, seen.sample),
        report=with_written(seen.report, run.status.report),
        configuration=reported.facts.configuration,
        notes=(*snapshot.notes, *seen.notes),
    )


def _charts(reported: ReportedRun) -> dict[str, tuple[dict[str, Any], ...]]:
    charts = build_charts([reported])
    return {
        str(section): tuple(chart_data(chart) for chart in charts if chart.section is section) for section in Section
    }


def _finding(finding: Finding) -> FindingView:
    share = finding.share
    return FindingView(
        title=finding.title,
        value=finding.value,
        sentence=finding.sentence,
        tone=finding.tone.value,
        low=share.low if share is not None else None,
        value_share=share.value if share is not None else None,
        high=share.high if share is not None else None,
    )


def _iteration(seen: Seen, iteration: IterationStatus) -> IterationView:
    best, numbers = seen.snapshot.run.status.best, numbers_of(iteration)
    kl, held_out = numbers.get(TrainMetrics.kl), EvaluateMetrics.held_out_reward.join(numbers)
    return IterationView(
        index=iteration.index,
        is_best=best is not None and best.iteration == iteration.index,
        reward=_NONE if iteration.reward is None else f"{iteration.reward:.3f}",
        held_out_reward=_NONE if held_out is None else held_out.text(".3f"),
        win_rate=describe_win_rate(iteration),
        capability=describe_capability(iteration),
        kl=_NONE if kl is None else f"{kl:.4f}",
        stages=tuple(map(_stage, shown_stages(seen.snapshot.run, iteration))),
    )


def _stage(entry: StageStatus) -> StageView:
    return StageView(
        stage=str(entry.stage),
        phase=str(entry.phase),
        attempt=entry.attempt,
        started_at=entry.start_time,
        seconds=seconds_of(entry),
        message=entry.message,
    )


def _condition(condition: Condition) -> ConditionView:
    return ConditionView(
        type=str(condition.type),
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        since=condition.last_transition_time,
        is_trouble=is_trouble(condition),
    )


def _event(event: RunEvent) -> EventView:
    return EventView(
        time=event.time,
        reason=event.reason,
        message=event.message,
        count=event.count,
        is_warning=event.type is EventType.WARNING,
    )
