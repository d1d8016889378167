"""The loop of `dynalign run`: reconcile, show, wait; until the run has ended or somebody stops it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Final

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase, StagePhase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.local.cluster import LocalCluster, system_clock
from dynalign_operator.clusters.local.preload import has_gpus
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning import exit_reasons
from dynalign_operator.planning.notifications import with_notifications
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import retry
from dynalign_operator.reconcile import reconcile

_LOOK_EVERY_SECONDS: Final = 0.5

View = Callable[[LocalCluster, Plan, datetime], None]
"""Shows what a reconcile has planned."""


@dataclass
class Stop:
    """The signal that asked dynalign to stop; None before one came."""

    number: int | None = None


@contextmanager
def catch_signals() -> Iterator[Stop]:
    """Record SIGINT and SIGTERM for the loop, so that the running stage gets its grace period."""
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        stop.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def drive(
    cluster: LocalCluster, show: View, stop: Stop, notify: Callable[[], None] = lambda: None
) -> AlignmentRunStatus:
    """Carry the run on until it has ended, waits for the user, or `stop` is set. Raises ClusterError.

    A run that failed before is tried again: a user who repeats the command has removed the cause.
    """
    await cluster.write_status(cluster.run, retry(cluster.run).status)
    settings = BuildSettings(has_gpus=has_gpus(), sends_notifications=True)
    while stop.number is None:
        now = system_clock()
        plan = await reconcile(cluster, cluster.key, now, settings)
        if plan is None:
            break
        show(cluster, plan, now)
        notify()
        if is_over(cluster.run.status) and not is_reporting(cluster.run):
            break
        cluster.wait(_LOOK_EVERY_SECONDS)
    return cluster.run.status


async def store_notifications(cluster: LocalCluster) -> None:
    """Store which notifications are over, once the run goes on no more. Raises ClusterError."""
    over = cluster.deliveries.take(cluster.key, cluster.run.status.notifications)
    if over:
        await cluster.write_status(cluster.run, with_notifications(cluster.run, cluster.run.status, over))


def is_over(status: AlignmentRunStatus) -> bool:
    """Whether nothing will happen any more unless the user acts."""
    ended = status.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED)
    return ended or status.awaited_approval is not None or stalled_message(status) is not None


def is_reporting(run: AlignmentRun) -> bool:
    """Whether the report of a run that has ended is due or being written."""
    status, report = run.status, run.status.report
    has_ended = status.phase in (Phase.SUCCEEDED, Phase.FAILED)
    return has_ended and report is not None and report.phase in (StagePhase.PENDING, StagePhase.RUNNING)


def is_reported(run: AlignmentRun) -> bool:
    """Whether the report of the run's end has been written."""
    status, report = run.status, run.status.report
    is_current = report is not None and report.run_completion_time == status.completion_time is not None
    return is_current and report is not None and report.phase is StagePhase.SUCCEEDED


def stalled_message(status: AlignmentRunStatus) -> str | None:
    """What the user must correct; None when nothing."""
    condition = next((c for c in status.conditions if c.type is ConditionType.STALLED), None)
    return condition.message if condition is not None and condition.status == "True" else None


def exit_code_of(status: AlignmentRunStatus) -> int:
    """0 for a run that has succeeded or is suspended, else the class of the failure; 20 while it awaits approval."""
    condition = next((c for c in status.conditions if c.type is ConditionType.STALLED), None)
    if condition is not None and condition.status == "True":
        return exit_reasons.exit_code_of(condition.reason)
    if status.awaited_approval is not None and status.phase is Phase.RUNNING:
        return ExitCode.AWAITING_APPROVAL
    return 0 if status.phase in (Phase.SUCCEEDED, Phase.SUSPENDED) else 1
