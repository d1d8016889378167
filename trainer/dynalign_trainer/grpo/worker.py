"""One training process, started by torchrun: `torchrun ... -m dynalign_trainer.grpo.worker JOB_FILE [AGENT_PID]`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.records import BATCH, Row, read_rows
from dynalign_contract.result import ResultError
from dynalign_trainer.grpo import cpu_deepspeed
from dynalign_trainer.grpo.job import TrainJob, WorkerOutcome, WorkerResult, read_job, write_result
from dynalign_trainer.grpo.lifetime import die_with_parent

if TYPE_CHECKING:
    from dynalign_trainer.grpo.replay import ReplayTrainer


def main() -> None:
    """Train, and leave the adapter and a result (rank 0)."""
    if len(sys.argv) > 2:
        die_with_parent(int(sys.argv[2]))
    job = read_job(Path(sys.argv[1]))
    cpu_deepspeed.enable()
    import torch.distributed as dist

    try:
        result = train(job)
    except StageError as error:
        reason = ResultError(reason=type(error).__name__, message=str(error))
        result = WorkerResult(outcome=WorkerOutcome.REFUSED, error=reason)
    if is_first():
        write_result(job.work, result)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is rank 0 of all processes, which alone writes; known before they have met."""
    return os.environ["RANK"] == "0"


def build_trainer(job: TrainJob, rows: Sequence[Row]) -> "ReplayTrainer":
    """The trainer of a job, ready to train. Raises BadConfigError when the engine would not be DeepSpeed."""
    from accelerate.utils import DistributedType
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback
    from trl import GRPOConfig

    from dynalign_trainer.grpo.adapter import load_policy
    from dynalign_trainer.grpo.arguments import trainer_arguments
    from dynalign_trainer.grpo.callbacks import ReplayCallback
    from dynalign_trainer.grpo.replay import Recorded, ReplayTrainer
    from dynalign_trainer.grpo.schedule import plan_schedule

    schedule = plan_schedule(rows, ranks=int(os.environ["WORLD_SIZE"]), micro_batch=job.training.micro_batch)
    # The arguments come first: with ZeRO-3 they decide how the model's weights are loaded.
    arguments = GRPOConfig(**trainer_arguments(job, schedule))
    trainer = ReplayTrainer(
        Recorded(job, rows, schedule),
        model=load_policy(job),
        args=arguments,
        train_dataset=Dataset.from_dict({"micro_batch": list(range(schedule.steps * schedule.micro_batches))}),
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
    """Take the steps that remain and write the adapter; every rank calls it, rank 0 writes."""
    # TRL imports vLLM where it finds it, which doubles the time to the first step; the replay never generates.
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
    from dynalign_trainer.grpo.adapter import adapter_state, load_policy, norm_change, write_adapter
    from dynalign_trainer.grpo.callbacks import StoppedError

    rows = read_rows(job.batch, BATCH)
    if not rows:
        if is_first():
            policy = load_policy(job)
            write_adapter(job.output, policy, adapter_state(policy))
        return WorkerResult(outcome=WorkerOutcome.TRAINED)
    trainer = build_trainer(job, rows)
    policy = trainer.model
    before = adapter_state(policy)
    try:
        trainer.train(resume_from_checkpoint=None if job.resume is None else str(job.resume))
    except StoppedError:
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    steps = trainer.recorded.schedule.steps
    if trainer.state.global_step < steps:
        return WorkerResult(outcome=WorkerOutcome.STOPPED)
    _check_consumed(trainer, job)
    after = adapter_state(policy, _gathered(trainer))
    if trainer.rank == 0:
        write_adapter(job.output, policy, after)
    return WorkerResult(
        outcome=WorkerOutcome.TRAINED, mismatch=trainer.mismatch, adapter_norm_change=norm_change(before, after)
    )


def _gathered(trainer: "ReplayTrainer") -> dict[str, Any] | None:
    """The whole state dictionary where ZeRO-3 has spread it over ranks; a collective call."""
    if trainer.recorded.job.training.zero_stage < 3:
        return None
    state: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


def _check_consumed(trainer: "ReplayTrainer", job: TrainJob) -> None:
    """Every row of the steps taken by this attempt was consumed exactly once."""
    first = 0 if job.resume is None else int(job.resume.name.rpartition("-")[2])
    expected = sorted(trainer.recorded.schedule.of_rank(trainer.rank, first))
    if sorted(trainer.consumed) != expected:
        raise RuntimeError(
            f"rank {trainer.rank} trained on {len(trainer.consumed)} rows, not on the {len(expected)} of its schedule"
        )


if __name__ == "__main__":
    main()
