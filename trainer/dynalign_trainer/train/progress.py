"""Files by which both backends report progress to the stage, and learn that they have to stop."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dynalign_contract.manifest import describe_file
from dynalign_contract.records import BatchRow
from dynalign_trainer.models.folder import model_shape
from dynalign_trainer.train.checkpoints import drop_programs, seal_checkpoint
from dynalign_trainer.train.flops import model_flops
from dynalign_trainer.train.job import (
    BEGUN_FILE,
    STOP_FILE,
    StepMeasures,
    StepReport,
    TrainJob,
    append_report,
    keep_reports,
)
from dynalign_trainer.train.pace import Pace
from dynalign_trainer.train.processes.ranks import gather, wait_for_all
from dynalign_trainer.train.reference_pass import RowLogprobs, survey_file, write_survey


class StoppedError(Exception):
    """The stage asked to stop before the first step."""


def mark_ready(job: TrainJob, rank: int) -> None:
    """Report to the stage that the model is loaded."""
    if rank == 0:
        (job.work / BEGUN_FILE).touch()


def drop_later_reports(job: TrainJob, rank: int, first: int) -> None:
    """Drop the reports of steps from `first` on, which will be repeated. Raises StoppedError if asked to stop."""
    if rank == 0:
        keep_reports(job.work, first)
    if any(gather(_is_asked_to_stop(job))):
        raise StoppedError


@dataclass(frozen=True)
class AfterStep:
    """What follows a step, on every rank alike."""

    saves: bool
    """Whether a checkpoint is written."""
    stops: bool
    """Whether the processes end after that."""


def after_step(job: TrainJob, pace: Pace, done: int) -> AfterStep:
    """Decide what follows step `done`; a collective call.

    All stop if any rank has seen the stop file. Rank 0's clock says whether a checkpoint is due; one that would not be
    whole before the processes are killed is not begun.
    """
    pace.end_step()
    stops = _is_asked_to_stop(job)
    is_due, fits = pace.is_due(done), pace.fits(_seconds_left(job) if stops else None)
    ranks = gather((stops, is_due, fits))
    stop, due = any(one[0] for one in ranks), ranks[0][1]
    return AfterStep(saves=(stop or due) and all(one[2] for one in ranks), stops=stop)


def _is_asked_to_stop(job: TrainJob) -> bool:
    return (job.work / STOP_FILE).exists()


def _seconds_left(job: TrainJob) -> float | None:
    """Time until the processes are killed; None where the stop file does not say it."""
    try:
        return float((job.work / STOP_FILE).read_text()) - time.time()
    except (OSError, ValueError):
        return None


def finish_checkpoint(
    folder: Path, job: TrainJob, surveyed: Mapping[int, RowLogprobs], rank: int, written: Iterable[Path] = ()
) -> None:
    """Add the reference pass to a checkpoint and seal it when every rank has written its part; a collective call.

    `written`: this rank's files, whose digests it computes itself, at the same time as the other ranks do.
    """
    write_survey(survey_file(folder, rank), surveyed)
    own = (*written, survey_file(folder, rank))
    ranks = gather([describe_file(folder, str(path.relative_to(folder))) for path in own if path.exists()])
    if rank == 0:
        drop_programs(folder)
        seal_checkpoint(folder, job, (file for files in ranks for file in files))
    wait_for_all()


def report_step(
    job: TrainJob,
    measures: StepMeasures,
    rows: list[BatchRow],
    *,
    step: int,
    steps: int,
    grad_norm: float | None,
    seconds: float,
) -> None:
    """Publish a step that has ended: `step` is 1-based, `rows` are those that carried loss, over all ranks."""
    shape = model_shape(job.model)
    append_report(
        job.work,
        StepReport(
            **measures.model_dump(),
            step=step,
            steps=steps,
            grad_norm=grad_norm,
            tokens=sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows),
            seconds=seconds,
            flops=None if shape is None else model_flops(shape, rows, job.training.method),
        ),
    )
