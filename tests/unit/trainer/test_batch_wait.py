"""Workers have loaded the model before the batch is there: what they then wait for, and what they find."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.records import BatchRow
from dynalign_trainer.train.batch_wait import EmptyBatchError, await_batch
from dynalign_trainer.train.job import JOB_FILE, TrainJob, read_job, write_job
from lab.recorded_groups import draw_groups
from lab.training_jobs import make_job, write_batch

ROWS = draw_groups(steps=1, groups=2, candidates=4, prompt=3, lengths=(5, 2), vocabulary=50)


@pytest.fixture(autouse=True)
def only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")


def a_job(root: Path) -> TrainJob:
    """A job as the stage leaves it before it builds the batch."""
    job = make_job(model=root, batch=root / "batch" / BATCH_FILE, work=root / "work")
    write_job(early := job.model_copy(update={"group_size": None}))
    return early


def hand_over(job: TrainJob, rows: Sequence[BatchRow]) -> None:
    """What the stage does when it has built the batch."""
    write_batch(job.batch.parent, rows)
    write_job(job.model_copy(update={"group_size": 4}))


def test_a_worker_waits_for_the_batch_and_then_knows_all(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    with pytest.raises(RuntimeError, match="not there yet"):
        _ = read_job(job.work / JOB_FILE).rows_per_full_step
    stage = threading.Timer(0.1, hand_over, (job, ROWS))
    stage.start()
    try:
        whole, rows = await_batch(job)
    finally:
        stage.join()
    assert [(row["prompt_ids"], row["completion_ids"]) for row in rows] == [
        (row["prompt_ids"], row["completion_ids"]) for row in ROWS
    ]
    assert whole.rows_per_full_step == 4 * job.training.prompts_per_step
    assert whole == read_job(job.work / JOB_FILE)


def test_a_worker_keeps_what_was_chosen_while_it_waited(tmp_path: Path) -> None:
    """`settle` has replaced what the job file leaves open before the model was loaded."""
    job = a_job(tmp_path)
    hand_over(job, ROWS)
    settled = job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": 0.5})})
    assert await_batch(settled)[0].training.learning_rate == 0.5


def test_a_batch_that_is_there_already_is_not_waited_for(tmp_path: Path) -> None:
    job = make_job(model=tmp_path, batch=write_batch(tmp_path / "batch", ROWS), work=tmp_path / "work")
    assert len(await_batch(job)[1]) == len(ROWS)


def test_a_batch_that_teaches_nothing_is_told_apart(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    hand_over(job, [])
    with pytest.raises(EmptyBatchError):
        await_batch(job)


def test_a_damaged_batch_is_refused(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    hand_over(job, ROWS)
    job.batch.write_bytes(job.batch.read_bytes()[:-1])
    with pytest.raises(CorruptArtifactError, match="batch"):
        await_batch(job)
