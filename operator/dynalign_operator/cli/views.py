"""What `dynalign run` shows while it works: a live picture on a terminal, a line an event elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from dynalign_contract.objective import BUILTIN
from dynalign_operator.api.status import StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.drive import View
from dynalign_operator.cli.tables import (
    MARKS,
    describe_numbers,
    describe_seconds,
    progress_table,
    reward_parts,
)
from dynalign_operator.cli.terminal import styled
from dynalign_operator.clusters.local.cluster import LocalCluster
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.plan import EventType, Plan
from dynalign_operator.planning.stage_status import stage_status

_BAR_WIDTH: Final = 30


def header(run: AlignmentRun) -> str:
    """Run, model and objective in a line."""
    reference = run.spec.objective.config_map_ref
    objective = f"ConfigMap {reference.name}" if reference else run.spec.objective.builtin or BUILTIN[0]
    return f"{run.metadata.name}: {run.spec.model.uri} with {objective}"


def silent_view(cluster: LocalCluster, plan: Plan, now: datetime) -> None:
    """Show nothing."""
    del cluster, plan, now


def plain_view(console: Console) -> View:
    """A line an event, and one with an iteration's numbers when it has new ones."""
    shown: dict[int, str] = {}

    def show(cluster: LocalCluster, plan: Plan, now: datetime) -> None:
        lines = []
        for event in plan.events:
            mark = "! " if event.type is EventType.WARNING else ""
            lines.append(f"{plan.status.progress:20s} {mark}{event.message}")
        for entry in cluster.run.status.iterations:
            numbers = describe_numbers(entry)
            if numbers and shown.get(entry.index) != numbers:
                shown[entry.index] = numbers
                lines.append(f"iteration {entry.index}: {numbers}")
        for line in lines:
            console.print(f"{now.astimezone():%H:%M:%S} {line}", soft_wrap=True)

    return show


@contextmanager
def live_view(console: Console) -> Iterator[View]:
    """A picture that is drawn anew in place; warnings scroll by above it."""
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(cluster: LocalCluster, plan: Plan, now: datetime) -> None:
            for event in plan.events:
                if event.type is EventType.WARNING:
                    live.console.print(styled(event.message, style="yellow"))
            live.update(picture(cluster.run, cluster.live, now), refresh=True)

        yield show


def picture(run: AlignmentRun, live: LiveMetrics | None, now: datetime) -> RenderableType:
    """The whole run: header, fetch, iterations, the running stage, export."""
    status = run.status
    parts: list[RenderableType] = [styled(header(run), style="bold")]
    if status.fetch is not None:
        parts.append(f"{MARKS[status.fetch.phase]} fetch")
    parts.append(progress_table(run))
    if status.export is not None and status.export.phase is not StagePhase.PENDING:
        parts.append(f"{MARKS[status.export.phase]} export")
    if status.stage is not None:
        entry = stage_status(status, Step(status.stage, status.iteration))
        parts.append(_stage_line(entry, live, now))
    scores = {name: score for entry in status.iterations for name, score in reward_parts(numbers_of(entry)).items()}
    if scores:
        parts.append(styled("training rewards: " + ", ".join(f"{n} {s:.3f}" for n, s in scores.items()), style="dim"))
    if status.estimated_completion_time is not None:
        left = (status.estimated_completion_time - now).total_seconds()
        parts.append(styled(f"the run ends in about {describe_seconds(max(0.0, left))}", style="dim"))
    return Group(*parts)


def _stage_line(entry: StageStatus, live: LiveMetrics | None, now: datetime) -> Table:
    started = entry.start_time or now
    elapsed = now - started
    fraction = live.progress.fraction if live is not None else None
    bar = ProgressBar(total=1.0, completed=fraction or 0.0, width=_BAR_WIDTH, pulse=fraction is None)
    words = [describe_seconds(elapsed.total_seconds())]
    if live is not None and live.total > 0:
        words.append(f"{live.done:.0f}/{live.total:.0f}")
    if live is not None and live.tokens_per_second > 0:
        words.append(f"{live.tokens_per_second:.0f} tokens/s")
    if fraction and elapsed > timedelta(seconds=1) and fraction < 1:
        words.append(f"{describe_seconds(elapsed.total_seconds() * (1 - fraction) / fraction)} left")
    line = Table.grid(padding=(0, 1))
    attempt = f" (attempt {entry.attempt})" if entry.attempt > 1 else ""
    line.add_row(f"{entry.stage}{attempt}", bar, ", ".join(words))
    return line
