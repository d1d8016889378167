"""What is remembered of a Job between two processes: `.jobs/<job>/record.json`."""

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from dynalign_contract.base import Model
from dynalign_contract.files import write_bytes
from dynalign_contract.result import StageResult
from dynalign_operator.clusters.errors import WorkdirError
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.manifests.labels import read_job_labels
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, PodTime

_RECORD: Final = "record.json"


class JobRecord(Model):
    """A Job's state, as a Kubernetes Job's status would hold it."""

    name: str
    labels: dict[str, str]
    completions: int
    creation_time: datetime
    phase: JobPhase = JobPhase.ACTIVE
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    pods: tuple[PodTime, ...] = ()
    """Processes of the completions, repeated ones included."""

    def with_pod(self, index: int, now: datetime) -> Self:
        """The record with a process that begins now."""
        return self.model_copy(update={"pods": (*self.pods, PodTime(index, now))})

    def with_pod_ended(self, now: datetime) -> Self:
        """The record with the end of its latest process, unless that is known."""
        if not self.pods or self.pods[-1].end_time is not None:
            return self
        return self.model_copy(update={"pods": (*self.pods[:-1], replace(self.pods[-1], end_time=now))})


def write_record(workdir: Workdir, record: JobRecord) -> None:
    """Store a record atomically."""
    write_bytes(workdir.job(record.name) / _RECORD, record.to_json(indent=2).encode())


def read_records(workdir: Workdir) -> dict[str, JobRecord]:
    """All records by Job name. A folder without one is a Job that was never started. Raises WorkdirError."""
    paths = sorted(workdir.jobs.glob(f"*/{_RECORD}"))
    return {record.name: record for record in map(_read_record, paths)}


def remove_record(workdir: Workdir, name: str) -> None:
    """Forget a Job; its logs stay."""
    shutil.rmtree(workdir.job(name), ignore_errors=True)


def disrupted(record: JobRecord, now: datetime, message: str) -> JobRecord:
    """The record of a Job that ended because the dynalign that ran it did."""
    update = {"phase": JobPhase.FAILED, "reason": DISRUPTED, "message": message, "completion_time": now}
    return record.with_pod_ended(now).model_copy(update=update)


def observe_record(
    workdir: Workdir,
    record: JobRecord,
    *,
    live: LiveMetrics | None = None,
    last_progress_time: datetime | None = None,
    deleting: bool = False,
) -> JobObservation | None:
    """The planner's view of a record; None for labels that are not of ours."""
    labels = read_job_labels(record.labels)
    if labels is None:
        return None
    return JobObservation(
        name=record.name,
        stage=labels.stage,
        iteration=labels.iteration,
        attempt=labels.attempt,
        creation_time=record.creation_time,
        phase=record.phase,
        results=tuple(_read_result(workdir.result(record.name, index)) for index in range(record.completions)),
        exit_code=record.exit_code,
        reason=record.reason,
        message=record.message,
        start_time=record.start_time,
        completion_time=record.completion_time,
        pods=record.pods,
        last_progress_time=last_progress_time,
        progress=live.progress if live is not None else None,
        deleting=deleting,
    )


def _read_record(path: Path) -> JobRecord:
    try:
        return JobRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise WorkdirError(
            f"{path} is not a Job's record that can be read. Remove the folder {path.parent}; its stage is looked at "
            "again, and skipped if its artifact is whole."
        ) from error


def _read_result(path: Path) -> StageResult | None:
    try:
        return StageResult.decode(path.read_bytes())
    except (OSError, ValidationError):
        return None
