"""The Packed backend's part of a worker process."""

import os
from collections.abc import Sequence

from dynalign_contract.records import Row
from dynalign_trainer.grpo.adapter import norm_change, write_adapter
from dynalign_trainer.grpo.job import TrainJob, WorkerOutcome, WorkerResult
from dynalign_trainer.grpo.packed.engine import read_adapter, start_distributed, start_engine
from dynalign_trainer.grpo.packed.packing import plan_packs
from dynalign_trainer.grpo.packed.trainer import PackedTrainer
from dynalign_trainer.grpo.progress import StoppedError


def build_trainer(job: TrainJob, rows: Sequence[Row]) -> PackedTrainer:
    """The trainer of a job, ready to train; a collective call. Raises BadConfigError when it cannot pack."""
    start_distributed()
    plan = plan_packs(rows, ranks=int(os.environ["WORLD_SIZE"]), budget=job.training.tokens_per_micro_batch)
    return PackedTrainer(job, rows, plan, start_engine(job))


def train(job: TrainJob, rows: Sequence[Row]) -> WorkerResult:
    """Take the steps that remain and write the adapter; every rank calls it, rank 0 writes."""
    trainer = build_trainer(job, rows)
    before = read_adapter(trainer.engine)
    try:
        finished = trainer.train()
    except StoppedError:
        finished = False
    if not finished:
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    after = read_adapter(trainer.engine)
    if trainer.rank == 0:
        write_adapter(job.output, trainer.engine.module.policy, after)
    return WorkerResult(
        outcome=WorkerOutcome.TRAINED, mismatch=trainer.mismatch, adapter_norm_change=norm_change(before, after)
    )
