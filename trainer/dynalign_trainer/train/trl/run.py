"""The TRL backend's part of a worker process."""

import os
from collections.abc import Sequence

from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback
from trl import GRPOConfig

from dynalign_contract.errors import BadConfigError
from dynalign_contract.records import BatchRow
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16
from dynalign_trainer.train.batch_wait import await_batch
from dynalign_trainer.train.checkpoints import step_of
from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed
from dynalign_trainer.train.job import TrainJob, WorkerOutcome, WorkerResult
from dynalign_trainer.train.policy.policy import begin_writer, load_policy
from dynalign_trainer.train.processes.links import measure_links
from dynalign_trainer.train.progress import StoppedError
from dynalign_trainer.train.trl.arguments import trainer_arguments
from dynalign_trainer.train.trl.callbacks import ReplayCallback
from dynalign_trainer.train.trl.schedule import plan_schedule
from dynalign_trainer.train.trl.trainer import Recorded, ReplayTrainer


def build_trainer(job: TrainJob, rows: Sequence[BatchRow]) -> ReplayTrainer:
    """The trainer of a job, ready to train. Raises BadConfigError when the engine would not be DeepSpeed."""
    cpu_deepspeed.enable()
    schedule = plan_schedule(rows, ranks=int(os.environ["WORLD_SIZE"]), micro_batch=job.training.sequences_per_pass)
    # The arguments come first: with ZeRO-3 they decide how the model's weights are loaded.
    arguments = GRPOConfig(**trainer_arguments(job, schedule))
    if use_bfloat16(job.dtype) and not count_gpus():
        cpu_deepspeed.compute_in_bfloat16(arguments)
    recorded = Recorded(job, rows, schedule)
    trainer = ReplayTrainer(
        recorded,
        model=load_policy(job),
        args=arguments,
        train_dataset=Dataset.from_dict({"micro_batch": list(range(len(recorded.order) * schedule.micro_batches))}),
        processing_class=AutoTokenizer.from_pretrained(job.model, local_files_only=True),
    )
    if trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise BadConfigError(
            f"the training engine is {trainer.accelerator.distributed_type}, not DeepSpeed: start the workers with "
            "torchrun and install the deepspeed version that dynalign pins"
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ReplayCallback(trainer))
    return trainer


def train(job: TrainJob) -> WorkerResult:
    """Take the steps that remain and write the policy; every rank calls it, rank 0 writes.

    The batch decides the trainer's arguments, and these how weights are loaded: only libraries are loaded before it.
    Raises EmptyBatchError.
    """
    job, rows = await_batch(job)
    trainer = build_trainer(job, rows)
    links = measure_links(job.training.nodes)
    writer = begin_writer(job, trainer.model)
    try:
        trainer.train(resume_from_checkpoint=None if job.resume is None else str(job.resume))
    except StoppedError:
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    if trainer.state.global_step < len(trainer.recorded.order):
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    _check_consumed(trainer, job)
    return WorkerResult(
        outcome=WorkerOutcome.TRAINED,
        mismatch=trainer.mismatch,
        reference_seconds=trainer.reference_seconds,
        links=tuple(links),
        norm_change=writer.write(),
    )


def _check_consumed(trainer: ReplayTrainer, job: TrainJob) -> None:
    """Every row of the steps taken by this attempt was consumed exactly once in each of them."""
    first = 0 if job.resume is None else step_of(job.resume)
    taken, schedule = trainer.recorded.order[first:], trainer.recorded.schedule
    expected = sorted(row for step in taken for row in schedule.of_rank(trainer.rank, step))
    if sorted(trainer.consumed) != expected:
        raise RuntimeError(
            f"rank {trainer.rank} trained on {len(trainer.consumed)} rows, not on the {len(expected)} of its schedule"
        )
