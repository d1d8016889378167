"""The table of `dynalign top`. Values to a renderable: nothing is read here."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from rich.table import Table

from dynalign_operator.api.status import Phase
from dynalign_operator.cli.situation import count_requested_gpus, stalled_condition
from dynalign_operator.cli.tables import describe_seconds
from dynalign_operator.cli.terminal import styled
from dynalign_operator.clusters.run_source import ListedRun

_NONE: Final = "-"
_ORDER: Final = (Phase.RUNNING, Phase.PENDING, Phase.SUSPENDED, Phase.FAILED, Phase.SUCCEEDED)
_STYLES: Final = {Phase.SUCCEEDED: "green", Phase.FAILED: "red", Phase.SUSPENDED: "yellow"}


def run_table(runs: Iterable[ListedRun], now: datetime) -> Table:
    """A line for each run; those that work come first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("run", "in", "phase"):
        table.add_column(heading, overflow="fold")
    for heading in ("iteration", "stage", "done", "ends in", "GPUs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in sorted(runs, key=lambda run: (_ORDER.index(run.status.phase), run.group, run.name)):
        status = run.status
        style = _STYLES.get(status.phase, "yellow" if _phase(run) != status.phase else "")
        table.add_row(
            run.name,
            run.group,
            styled(_phase(run), style),
            _iteration(run),
            _NONE if status.stage is None or status.phase is Phase.SUCCEEDED else str(status.stage),
            _done(run),
            _ends(run, now),
            str(count_requested_gpus(run.run)) if run.is_cluster and run.run is not None else _NONE,
        )
    return table


def _phase(run: ListedRun) -> str:
    """The phase, and what is wrong in one word."""
    if run.problem:
        return f"{run.status.phase} (not valid)"
    stalled = stalled_condition(run.status)
    if stalled is not None:
        return f"{run.status.phase} ({stalled.reason})"
    if run.status.awaited_approval is not None and run.status.phase is Phase.RUNNING:
        return f"{run.status.phase} (awaits approval)"
    works = run.status.phase in (Phase.RUNNING, Phase.PENDING)
    return f"{run.status.phase} (stopped)" if works and not run.is_driven else str(run.status.phase)


def _iteration(run: ListedRun) -> str:
    """`2/10`, counted from 1 as in `status.progress`."""
    if run.run is None or run.status.iteration is None:
        return _NONE
    return f"{run.status.iteration + 1}/{max(run.run.spec.iterations, run.status.iteration + 1)}"


def _done(run: ListedRun) -> str:
    last = run.status.progress.rpartition(" ")[2]
    return last if last.endswith("%") and run.status.phase is Phase.RUNNING else _NONE


def _ends(run: ListedRun, now: datetime) -> str:
    at = run.status.estimated_completion_time
    return _NONE if at is None else describe_seconds(max(0.0, (at - now).total_seconds()))
