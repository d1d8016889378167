"""Run under torchrun with job files: trains each job as the worker does and records what DeepSpeed sees at every step.

Writes `probe.pt` into each job's work folder: a list, one entry an optimiser step, of the step's loss over all ranks, and
the parameters and whole gradients of the adapter, by name, just before the engine steps.
"""

import sys
from pathlib import Path
from typing import Any

from dynalign_contract.records import BATCH, read_rows
from dynalign_trainer.grpo import cpu_deepspeed
from dynalign_trainer.grpo.job import TrainJob, read_job


def probe(job: TrainJob) -> None:
    import torch
    from deepspeed.utils import safe_get_full_grad
    from transformers import TrainerCallback

    from dynalign_trainer.grpo.worker import build_trainer

    seen: list[dict[str, Any]] = []
    trainer = build_trainer(job, read_rows(job.batch, BATCH))

    class Record(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            engine = trainer.model_wrapped
            step = engine.step

            def recording_step(*args: Any, **kwargs: Any) -> None:
                named = [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]
                grads = {n: safe_get_full_grad(p).detach().clone() for n, p in named}
                params = {n: p.detach().clone() for n, p in named}
                seen.append({"loss": trainer.measures.loss, "params": params, "grads": grads})
                step(*args, **kwargs)

            engine.step = recording_step

    trainer.add_callback(Record)
    trainer.train()
    if trainer.rank == 0:
        torch.save({"steps": seen, "rejected": trainer.mismatch.rejected}, job.work / "probe.pt")


def main() -> None:
    cpu_deepspeed.enable()
    import torch.distributed as dist
    from accelerate.state import AcceleratorState

    for path in sys.argv[1:]:
        probe(read_job(Path(path)))
        AcceleratorState._reset_state(reset_partial_state=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
