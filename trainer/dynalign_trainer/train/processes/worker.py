"""One training process: `python -m dynalign_trainer.train.processes.worker JOB_FILE [PID]`, started by process PID.

That is torchrun's agent, or the stage where there is one process only.
"""

import gc
import os
import sys
from pathlib import Path
from typing import Final

from dynalign_contract.errors import StageError
from dynalign_contract.result import ResultError
from dynalign_contract.settings import TrainingBackend
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.lifetime import die_with_parent
from dynalign_trainer.train.batch_wait import EmptyBatchError
from dynalign_trainer.train.choice import settle
from dynalign_trainer.train.job import TrainJob, WorkerOutcome, WorkerResult, read_job, write_result

_UNUSED: Final = ("vllm", "sklearn", "scipy")


def main() -> None:
    """Be a program: train, and leave the policy and a result (rank 0)."""
    if len(sys.argv) > 2:
        die_with_parent(int(sys.argv[2]))
    work(Path(sys.argv[1]))


def work(file: Path) -> None:
    """Train as a job file says, as the rank that the environment names."""
    job = read_job(file)
    with importing():
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


def train(job: TrainJob) -> WorkerResult:
    """Settle what the job leaves open, take the steps that remain, write the policy; a collective call, rank 0 writes.

    Raises StageError.
    """
    leave_out_unused()
    with importing():
        from dynalign_trainer.train.measure import check_change, largest_peak_memory, total_peak_flops

    settled, choice = settle(job)
    result = _take_steps(settled)
    peak = largest_peak_memory()  # before the check, which may end rank 0 alone
    check_change(result.norm_change)
    measured = {"peak_memory_bytes": peak, "peak_flops": total_peak_flops(job.dtype)}
    return result.model_copy(update={"training": choice, **measured})


def leave_out_unused() -> None:
    """Have libraries believe that others are not installed which they import where they find them; call it first.

    TRL imports vLLM, which doubles the time to the first step; no backend generates. transformers imports scikit-learn
    and SciPy, 140 MB, for assisted generation and the losses of object detection. Does nothing to what is imported.
    """
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def _take_steps(job: TrainJob) -> WorkerResult:
    """Take the steps that remain of a job in which nothing is left to choose, and write the policy."""
    try:
        match job.training.backend:
            case TrainingBackend.PACKED:
                with importing():
                    from dynalign_trainer.train.packed.run import train as train_packed

                return train_packed(job)
            case TrainingBackend.TRL:
                with importing():
                    from dynalign_trainer.train.trl.run import train as train_replay

                return train_replay(job)
            case TrainingBackend.AUTO:
                raise RuntimeError("the job's backend is Auto, which `settle` replaces")
    except EmptyBatchError:
        pass
    gc.collect()  # an engine that is still alive would have the weights that are loaded now spread over the ranks
    if is_first():
        from dynalign_trainer.train.policy.policy import keep_policy

        keep_policy(job)
    return WorkerResult(outcome=WorkerOutcome.TRAINED)


if __name__ == "__main__":
    main()
