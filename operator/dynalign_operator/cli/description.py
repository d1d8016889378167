"""What `dynalign describe` prints, as rich renderables. Values to renderables: nothing is read here."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table

from dynalign_contract.layout import stage_folder
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, IterationStatus, Phase
from dynalign_operator.cli.situation import (
    Situation,
    clock,
    count_requested_gpus,
    current_step,
    explain_situation,
    span,
)
from dynalign_operator.cli.tables import (
    describe_capability,
    describe_goodput,
    describe_seconds,
    describe_win_rate,
)
from dynalign_operator.cli.terminal import styled
from dynalign_operator.clusters.run_source import RunEvent, RunSnapshot
from dynalign_operator.planning.approvals import describe_decision
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.plan import EventType
from dynalign_operator.planning.stage_status import seconds_of, separate_stages

LATEST_ITERATIONS: Final = 5
LATEST_EVENTS: Final = 10
_GOOD: Final = {
    ConditionType.READY: "True",
    ConditionType.PROGRESSING: "True",
    ConditionType.COMPLETED: "True",
    ConditionType.APPROVED: "True",
    ConditionType.STALLED: "False",
    ConditionType.DEGRADED: "False",
    ConditionType.REPORTED: "True",
    ConditionType.NOTIFIED: "True",
}
_STYLES: Final = {Phase.SUCCEEDED: "green", Phase.FAILED: "red", Phase.SUSPENDED: "yellow"}


def describe_run(
    snapshot: RunSnapshot,
    events: tuple[RunEvent, ...],
    now: datetime,
    *,
    program: str = "dynalign",
    sample: RenderableType | None = None,
) -> RenderableType:
    """The whole description: situation, a sample of what awaits approval, figures, conditions, events, places."""
    status = snapshot.run.status
    parts: list[RenderableType] = [headline(snapshot, now), "", situation(explain_situation(snapshot, events, now))]
    if sample is not None:
        parts += ["", styled("To approve", "bold"), sample]
    if status.iterations:
        parts += ["", styled("Latest iterations", "bold"), figures(status)]
        parts += [styled(goodput, "dim")] if (goodput := describe_goodput(status.goodput)) else []
    if status.approvals:
        parts += ["", styled("Decisions of people", "bold"), _decisions(status, now)]
    if status.conditions:
        parts += ["", styled("Conditions", "bold"), _conditions(status, now)]
    if events:
        parts += ["", styled("Latest events", "bold"), latest_events(events, now)]
    parts += ["", styled("Where things are", "bold"), _places(snapshot, program)]
    parts += [styled(f"note: {note}", "yellow") for note in snapshot.notes]
    return Group(*parts)


def headline(snapshot: RunSnapshot, now: datetime) -> RenderableType:
    """Name, place, phase, progress and the estimated end, in two lines."""
    run, status = snapshot.run, snapshot.run.status
    words = [str(status.phase), *([status.progress] if status.progress else [])]
    if status.start_time is not None and status.completion_time is None:
        words.append(f"for {span(status.start_time, now)}")
    if status.estimated_completion_time is not None:
        left = describe_seconds(max(0.0, (status.estimated_completion_time - now).total_seconds()))
        words.append(f"ends in about {left} ({clock(status.estimated_completion_time, now)})")
    if snapshot.place.is_cluster and (gpus := count_requested_gpus(run)):
        words.append(f"{gpus} GPU{'s' if gpus > 1 else ''} requested")
    return Group(
        styled(f"{run.metadata.name} in {snapshot.place.title}", "bold"),
        styled(", ".join(words), _STYLES.get(status.phase, "")),
    )


def situation(found: Situation) -> Table:
    """What the run does, what it waits for, what to do."""
    table = _grid()
    for title, sentences in (("Now", found.does), ("Waits", found.waits), ("To do", found.to_do)):
        for number, sentence in enumerate(sentences):
            table.add_row("" if number else styled(title, "bold"), sentence)
    return table


def figures(status: AlignmentRunStatus) -> Table:
    """Figures of the latest iterations; `*` marks the best one."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("iteration", "reward", "win rate over base", "capability change", "KL", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for iteration in status.iterations[-LATEST_ITERATIONS:]:
        kl = numbers_of(iteration).get(TrainMetrics.kl)
        best = status.best is not None and status.best.iteration == iteration.index
        table.add_row(
            f"{iteration.index}{' *' if best else ''}",
            "-" if iteration.reward is None else f"{iteration.reward:.3f}",
            describe_win_rate(iteration),
            describe_capability(iteration),
            "-" if kl is None else f"{kl:.4f}",
            describe_seconds(_seconds(iteration)),
        )
    return table


def latest_events(events: Sequence[RunEvent], now: datetime) -> Table:
    """The last events, oldest first."""
    table = _grid(2)
    for event in events[-LATEST_EVENTS:]:
        style = "yellow" if event.type is EventType.WARNING else ""
        often = f" (x{event.count})" if event.count > 1 else ""
        table.add_row(styled(clock(event.time, now), "dim"), styled(f"{event.reason}{often}: {event.message}", style))
    return table


def _decisions(status: AlignmentRunStatus, now: datetime) -> Table:
    table = _grid(2)
    for decision in status.approvals[-LATEST_ITERATIONS:]:
        table.add_row(styled(clock(decision.time, now), "dim"), describe_decision(decision))
    return table


def is_trouble(condition: Condition) -> bool:
    """Whether a condition says that something is wrong; one that is not yet met says nothing."""
    return condition.status not in (_GOOD[condition.type], "False")


def _conditions(status: AlignmentRunStatus, now: datetime) -> Table:
    table = _grid(4)
    for condition in status.conditions:
        style = "yellow" if is_trouble(condition) else ""
        table.add_row(
            str(condition.type),
            styled(condition.status, style),
            condition.reason,
            styled(f"since {clock(condition.last_transition_time, now)}", "dim"),
        )
    return table


def _places(snapshot: RunSnapshot, program: str) -> Table:
    run, files = snapshot.run, snapshot.place.files
    status, table = run.status, _grid()
    table.add_row("files", files)
    for name, text in _folders(status):
        table.add_row(name, text)
    table.add_row("log", f"`{program} logs {snapshot.place.arguments}{_log_options(status)}`")
    return table


def _folders(status: AlignmentRunStatus) -> Iterable[tuple[str, str]]:
    """Folders below that of the run, and places where the model was published."""
    if status.iterations:
        index = status.iterations[-1].index
        folders = ", ".join(stage_folder(stage, index).rpartition("/")[2] for stage in ITERATION_STAGES)
        yield "iteration", f"iterations/{index:03d}: {folders}"
    if status.best is not None and status.best.model_uri:
        yield "best model", status.best.model_uri
    if status.phase is Phase.SUCCEEDED:
        yield "model", stage_folder(Stage.EXPORT)
    if status.report is not None and status.report.path:
        yield "report", status.report.path
    for place in status.published:
        yield "published", place.uri


def _log_options(status: AlignmentRunStatus) -> str:
    step = current_step(status)
    if step is None or status.phase is Phase.SUCCEEDED:
        return ""
    follow = "" if status.phase in (Phase.FAILED, Phase.SUSPENDED) else " -f"
    return f" --stage {step.stage}{follow}"


def _seconds(iteration: IterationStatus) -> float | None:
    """Time of the stages that have ended; None while none has."""
    found = [seconds for entry in separate_stages(iteration) if (seconds := seconds_of(entry)) is not None]
    return sum(found) if found else None


def _grid(columns: int = 2) -> Table:
    """Columns without lines; the last one takes the width that is left and folds."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for number in range(columns):
        last = number == columns - 1
        table.add_column(overflow="fold", no_wrap=not last, ratio=1 if last else None)
    return table
