"""What the workers wait for once they have loaded the model: the batch, which the stage builds meanwhile."""

import os
import time
from typing import Final

from dynalign_contract.manifest import read_listed, verify_files
from dynalign_contract.records import BATCH, BatchRow, read_rows
from dynalign_trainer.train.job import JOB_FILE, TrainJob, read_job

_LOOK_EVERY_SECONDS: Final = 0.02


class EmptyBatchError(Exception):
    """No group of the iteration teaches anything."""


def await_batch(job: TrainJob) -> tuple[TrainJob, list[BatchRow]]:
    """The job with all that is known once its batch is there, and the batch's rows.

    A collective call where the ranks have met. A stage that cannot build the batch ends its workers, so that nobody
    waits for ever. Raises EmptyBatchError, or CorruptArtifactError when the batch's files are not what its manifest
    says.
    """
    job = job.model_copy(update={"group_size": _group_size(job)})
    verify_files(job.batch.parent, read_listed(job.batch.parent))
    rows = read_rows(job.batch, BATCH)
    if not rows:
        raise EmptyBatchError
    return job, rows


def _group_size(job: TrainJob) -> int:
    """Rank 0, on whose node the stage builds the batch, looks for it and tells the others.

    Another node that had looked for a file would go on seeing what it saw then, as long as its volume's client keeps
    attributes.
    """
    import torch.distributed as dist

    from dynalign_trainer.train.processes.ranks import gather

    have_met = dist.is_initialized()
    looks = os.environ["RANK"] == "0" or not have_met
    found = _look(job) if looks else None
    if have_met:
        found = gather(found)[0]
    if found is None:
        raise RuntimeError("rank 0 does not tell the size of the batch's groups")
    return found


def _look(job: TrainJob) -> int:
    while job.group_size is None:
        time.sleep(_LOOK_EVERY_SECONDS)
        job = read_job(job.work / JOB_FILE)
    return job.group_size
