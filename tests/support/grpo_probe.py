"""Run by the agent with job files: trains each job as the worker does and records what DeepSpeed sees at every step.

Writes `probe.pt` into each job's work folder: for every optimiser step the loss over all ranks, and the parameters and
whole gradients of the adapter, by name, just before the engine steps; rejected rows; and passes of a rank in a step.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynalign_contract.records import BATCH, BatchRow, read_rows
from dynalign_contract.settings import TrainingBackend
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.train.job import StepMeasures, TrainJob, read_job
from dynalign_trainer.train.processes.worker import leave_out_unused


def watch(engine: Any, measures: Callable[[], StepMeasures | None], steps: list[dict[str, Any]]) -> None:
    """Record at every step of the engine that moves the weights."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    step = engine.step

    def recording_step(*args: Any, **kwargs: Any) -> None:
        if engine.is_gradient_accumulation_boundary():
            named = {n.removeprefix("policy."): p for n, p in engine.module.named_parameters() if p.requires_grad}
            grads = {name: safe_get_full_grad(p).detach().clone() for name, p in named.items()}
            with deepspeed.zero.GatheredParameters(list(named.values()), enabled=engine.zero_optimization_stage() == 3):
                params = {name: p.detach().clone() for name, p in named.items()}
            found = measures()
            assert found is not None
            steps.append({"loss": found.loss, "params": params, "grads": grads})
        step(*args, **kwargs)

    engine.step = recording_step


def probe_packed(job: TrainJob, rows: list[BatchRow], steps: list[dict[str, Any]]) -> dict[str, Any]:
    from dynalign_trainer.train.packed.run import build_trainer, start

    trainer = build_trainer(job, rows, start(job))
    watch(trainer.engine, lambda: trainer.measures, steps)
    trainer.train()
    passes = max(trainer.plan.micro_batches(step) for step in range(len(trainer.plan.steps)))
    trainer.engine.destroy()
    return {"rejected": trainer.mismatch.rejected, "passes": passes, "rank": trainer.rank}


def probe_trl(job: TrainJob, rows: list[BatchRow], steps: list[dict[str, Any]]) -> dict[str, Any]:
    from accelerate.state import AcceleratorState
    from transformers import TrainerCallback

    from dynalign_trainer.train.trl.run import build_trainer

    trainer = build_trainer(job, rows)

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch(trainer.model_wrapped, lambda: trainer.measures, steps)

    trainer.add_callback(Watch)
    trainer.train()
    passes = trainer.recorded.schedule.micro_batches
    seen = {"rejected": trainer.mismatch.rejected, "passes": passes, "rank": trainer.rank}
    AcceleratorState._reset_state(reset_partial_state=True)
    return seen


def main() -> None:
    leave_out_unused()
    with importing():  # a collection follows every job, and need not look at libraries
        import torch
        import torch.distributed as dist

        import dynalign_trainer.train.packed.run
        import dynalign_trainer.train.trl.run  # noqa: F401

    *paths, _ = sys.argv[1:]  # the agent adds its process id
    for path in paths:
        job = read_job(Path(path))
        steps: list[dict[str, Any]] = []
        probe = probe_packed if job.training.backend is TrainingBackend.PACKED else probe_trl
        seen = probe(job, read_rows(job.batch, BATCH), steps)
        if seen["rank"] == 0:
            torch.save({**seen, "steps": steps}, job.work / "probe.pt")
        gc.collect()  # a trainer that is still alive would have the next one's weights spread over ranks
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
