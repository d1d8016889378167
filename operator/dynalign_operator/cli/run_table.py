"""The table of `dynalign top`. Values to a renderable: nothing is read here."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from rich.table import Table

from dynalign_operator.api.status import Phase
from dynalign_operator.cli.situation import count_iterations, count_requested_gpus, remark_on, stage_share
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
    for heading in ("iteration", "stage", "done", "ends in", "GPUs", "goodput"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in sorted(runs, key=lambda run: (_ORDER.index(run.status.phase), run.group, run.name)):
        status = run.status
        style = _STYLES.get(status.phase, "yellow" if _phase(run) != status.phase else "")
        table.add_row(
            run.name,
            run.group,
            styled(_phase(run), style),
            count_iterations(run) or _NONE,
            _NONE if status.stage is None or status.phase is Phase.SUCCEEDED else str(status.stage),
            stage_share(status) or _NONE,
            _ends(run, now),
            str(count_requested_gpus(run.run)) if run.is_cluster and run.run is not None else _NONE,
            _goodput(run),
        )
    return table


def _phase(run: ListedRun) -> str:
    """The phase, and what is wrong in one word."""
    remark = remark_on(run)
    return f"{run.status.phase} ({remark})" if remark else str(run.status.phase)


def _goodput(run: ListedRun) -> str:
    goodput = run.status.goodput
    return _NONE if goodput is None or goodput.share is None else f"{goodput.share:.0%}"


def _ends(run: ListedRun, now: datetime) -> str:
    at = run.status.estimated_completion_time
    return _NONE if at is None else describe_seconds(max(0.0, (at - now).total_seconds()))
