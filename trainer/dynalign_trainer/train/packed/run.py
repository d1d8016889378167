"""The Packed backend's part of a worker process."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from dynalign_contract.records import BatchRow
from dynalign_trainer.train.batch_wait import await_batch
from dynalign_trainer.train.job import TrainJob, WorkerOutcome, WorkerResult
from dynalign_trainer.train.packed.activations import must_recompute, set_recomputation
from dynalign_trainer.train.packed.engine import start_distributed, start_engine
from dynalign_trainer.train.packed.packing import plan_packs
from dynalign_trainer.train.packed.trainer import PackedTrainer
from dynalign_trainer.train.policy.policy import begin_writer
from dynalign_trainer.train.processes.links import measure_links
from dynalign_trainer.train.progress import StoppedError

log = logging.getLogger("dynalign.train")


def start(job: TrainJob) -> Any:
    """Meet the other processes and load the model; a collective call. Raises BadConfigError when it cannot pack."""
    start_distributed()
    return start_engine(job)


def build_trainer(job: TrainJob, rows: Sequence[BatchRow], engine: Any) -> PackedTrainer:
    """The trainer of a job, ready to train; a collective call."""
    plan = plan_packs(rows, ranks=int(os.environ["WORLD_SIZE"]), budget=job.training.tokens_per_pass)
    recomputes = must_recompute(job, max((pack.tokens for step in plan.steps for pack in step), default=0))
    log.info("activations are %s", "computed again in the backward pass" if recomputes else "kept")
    set_recomputation(engine, on=recomputes)
    return PackedTrainer(job, rows, plan, engine)


def train(job: TrainJob) -> WorkerResult:
    """Take the steps that remain and write the policy; every rank calls it, rank 0 writes.

    Raises EmptyBatchError.
    """
    engine = start(job)
    links = measure_links(job.training.nodes)
    job, rows = await_batch(job)
    trainer = build_trainer(job, rows, engine)
    writer = begin_writer(job, trainer.engine.module.policy)
    try:
        finished = trainer.train()
    except StoppedError:
        finished = False
    if not finished:
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    return WorkerResult(
        outcome=WorkerOutcome.TRAINED,
        mismatch=trainer.mismatch,
        reference_seconds=trainer.reference_seconds,
        links=tuple(links),
        norm_change=writer.write(),
    )
