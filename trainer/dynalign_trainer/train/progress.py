"""Files by which both backends report progress to the stage, and learn that they have to stop."""

from collections.abc import Mapping
from pathlib import Path

from dynalign_contract.records import BatchRow
from dynalign_trainer.train.checkpoints import drop_programs, seal_checkpoint
from dynalign_trainer.train.job import (
    BEGUN_FILE,
    STOP_FILE,
    StepMeasures,
    StepReport,
    TrainJob,
    append_report,
    keep_reports,
)
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
    if asked_to_stop(job):
        raise StoppedError


def asked_to_stop(job: TrainJob) -> bool:
    """Whether any rank has seen the stop file, so that all stop at the same step; a collective call."""
    return any(gather((job.work / STOP_FILE).exists()))


def finish_checkpoint(folder: Path, job: TrainJob, surveyed: Mapping[int, RowLogprobs], rank: int) -> None:
    """Add the reference pass to a checkpoint and seal it when every rank has written its part; a collective call."""
    write_survey(survey_file(folder, rank), surveyed)
    wait_for_all()
    if rank == 0:
        drop_programs(folder)
        seal_checkpoint(folder, job)
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
    append_report(
        job.work,
        StepReport(
            **measures.model_dump(),
            step=step,
            steps=steps,
            grad_norm=grad_norm,
            tokens=sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows),
            seconds=seconds,
        ),
    )
