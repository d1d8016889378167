"""Whether activations are kept for the backward pass or computed again in it."""

import os
from typing import Any

from dynalign_contract.training_memory import has_room, training_memory
from dynalign_trainer.models.folder import model_shape
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16
from dynalign_trainer.runtime.memory import free_memory
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.policy import causal_lm
from dynalign_trainer.train.processes.ranks import gather


def must_recompute(job: TrainJob, tokens: int) -> bool:
    """Whether `training.gradientCheckpointing` says so, or else any process lacks the memory; a collective call.

    `tokens` are those of the largest pack. The model must be loaded: what is free now is what passes can take, and
    the optimiser's states, which come with the first step.
    """
    chosen = job.training.gradient_checkpointing
    return any(gather(not _fits(job, tokens))) if chosen is None else chosen


def _fits(job: TrainJob, tokens: int) -> bool:
    """Whether this process has room for the activations. Of a model whose sizes are not known nobody can say."""
    shape = model_shape(job.model)
    if shape is None or shape.keeps_scores:
        return False
    memory = training_memory(
        job.training,
        shape,
        processes=int(os.environ["WORLD_SIZE"]),
        value_bytes=2 if use_bfloat16(job.dtype) else 4,
        tokens=tokens,
        recomputes=False,
    )
    free = free_memory()
    if count_gpus():
        return has_room(memory.states + memory.passing, free)
    return has_room(memory.states + memory.host + memory.passing, free / _local_processes())


def set_recomputation(engine: Any, *, on: bool) -> None:
    """Compute activations again in the backward passes of a DeepSpeed engine around a `PackedPolicy`, or keep them."""
    policy = engine.module.policy
    if not on:
        causal_lm(policy).gradient_checkpointing_disable()
        return
    policy.enable_input_require_grads()
    # ZeRO-3 frees weights between the passes, which the other kind of checkpointing takes for changed activations.
    is_sharded = engine.zero_optimization_stage() == 3
    policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": is_sharded})


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
