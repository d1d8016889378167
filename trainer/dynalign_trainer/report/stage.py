"""The report stage: write report.html of what the run has left in its folder so far, beside the other stages."""

import json
import os
import signal
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from dynalign_contract.config import ReportParams
from dynalign_contract.errors import BadConfigError, TerminatedError
from dynalign_contract.files import fsync, write_bytes
from dynalign_contract.layout import REPORT_FILE, REPORT_RECORD, TRACKING_ID_FILE
from dynalign_contract.metrics import ReportMetrics
from dynalign_report.facts import ReportedRun
from dynalign_report.folder import read_reported_run
from dynalign_report.report import write_report
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.report.mlflow import log_run
from dynalign_trainer.report.numbers import numbers_by_iteration
from dynalign_trainer.report.tensorboard import write_events
from dynalign_trainer.report.wandb import write_offline_runs
from dynalign_trainer.runtime.context import StageContext, StageOutput

_NICE: Final = 10
"""The stages of the run come first where they share cores with this one."""


def run(context: StageContext[ReportParams]) -> StageOutput[ReportParams]:
    """Write report.html into the run's folder, and what it covers into the stage's own. No inputs.

    Artifacts that cannot be read are warnings, for a report of the rest is worth having. The page is written in the
    stage's folder, where the next attempt removes what a killed one has left, and then takes its place as a whole.
    """
    params, root, folder = context.params, context.layout.root, context.folder
    _end_at_once_on_sigterm()
    os.nice(_NICE)
    context.telemetry.begin()
    run = read_reported_run(root, params.facts)
    page = folder / REPORT_FILE
    size = write_report(page, [run], datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    page.replace(context.layout.report)
    fsync(root)
    for problem in run.problems:
        context.warn(problem)
    _track(context, run)
    record = {"iteration": params.iteration, "phase": params.facts.phase, "problems": list(run.problems)}
    write_bytes(folder / REPORT_RECORD, json.dumps(record, indent=2).encode())
    return StageOutput(
        files={REPORT_RECORD: 0},
        metrics={ReportMetrics.bytes: size, ReportMetrics.problems: len(run.problems)},
    )


def _track(context: StageContext[ReportParams], run: ReportedRun) -> None:
    """Bring the trackers up to date; one that cannot be written keeps none of the others from it.

    Raises EndpointError or BadConfigError, which name every tracker that was not written; the report is written by
    then.
    """
    failed: dict[str, EndpointError | BadConfigError] = {}
    for name, write in _writers(context, run).items():
        try:
            write()
        except (EndpointError, BadConfigError) as error:
            failed[name] = error
    if not failed:
        return
    is_final = all(isinstance(error, BadConfigError) for error in failed.values())
    names = " and ".join(f"spec.tracking.{name}" for name in failed)
    verb = "was" if len(failed) == 1 else "were"
    causes = " ".join(str(error) for error in failed.values())
    message = f"{names} {verb} not written; report.html is up to date, and what is missing comes with the next report: "
    raise (BadConfigError if is_final else EndpointError)(message + causes)


def _writers(context: StageContext[ReportParams], run: ReportedRun) -> dict[str, Callable[[], None]]:
    """Field of `spec.tracking` -> what writes that tracker; files come before servers."""
    tracking, facts, root = context.params.tracking, context.params.facts, context.layout.root
    numbers = numbers_by_iteration(run.stages, context.params.iteration)
    found: dict[str, Callable[[], None]] = {}
    if tracking.tensorboard is not None:
        found["tensorboard"] = partial(write_events, root, context.folder, numbers)
    if tracking.wandb is not None:
        folders = {"root": root, "scratch": context.folder}
        found["wandb"] = partial(write_offline_runs, tracking.wandb, _identity(root), facts, numbers, **folders)
    if tracking.mlflow is not None:
        found["mlflow"] = partial(log_run, tracking.mlflow, _identity(root), facts, numbers, os.environ)
    return found


def _identity(root: Path) -> str:
    """What trackers know the run by: its name may be that of another one."""
    file = root / TRACKING_ID_FILE
    if not file.is_file():
        write_bytes(file, uuid.uuid4().hex.encode())
    return file.read_text()


def _end_at_once_on_sigterm() -> None:
    """There is nothing to save, and the run may wait for this stage to end."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TerminatedError("stopped by SIGTERM; the report before this one is left as it was")

    signal.signal(signal.SIGTERM, end)
