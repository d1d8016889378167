"""DeepSpeed's configuration, as far as both backends share it."""

from datetime import timedelta
from typing import Any, Final

from dynalign_contract.settings import OptimizerOffload, TrainingSettings
from dynalign_trainer.runtime.machine import count_gpus

COLLECTIVE_TIMEOUT: Final = timedelta(hours=2)
"""Time that processes wait for each other. While rank 0 writes a policy, or a node reads a large model for the first
time, the others wait longer than the 10 minutes that DeepSpeed allows; a process that died ends the others at once."""


_BUCKET_ELEMENTS: Final = 50_000_000
"""Gradients and weights that are sent at once. DeepSpeed's 5e8 hold 2 GB in float32, twice where communication
overlaps; an adapter of rank 16 on a model of 8 B parameters has 4.4e7."""


def deepspeed_config(training: TrainingSettings) -> dict[str, Any]:
    """Build the part that does not depend on the batch.

    The optimiser stays PyTorch's AdamW (`zero_allow_untested_optimizer`), whose DeepSpeed counterparts are compiled on
    first use, which takes a C++ compiler and, beside a GPU, CUDA's. Where its states lie in the machine's memory, it is
    PyTorch's fused one, whose steps on a CPU are vectorised and use all threads.

    On a CPU `overlap_comm` has no stream to overlap with.

    Gradients are summed over micro-batches and ranks in float32: DeepSpeed's default is the model's own precision, and
    a sum of 32 bfloat16 gradients has several times the rounding error of one. ZeRO 0 has no such setting in bfloat16.
    """
    zero_stage = training.zero_stage
    config: dict[str, Any] = {
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": count_gpus() > 0,
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if is_offloaded(training):
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": count_gpus() > 0}
    if zero_stage:
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return config


def is_offloaded(training: TrainingSettings) -> bool:
    """Whether the optimiser's states lie in the machine's memory, where steps are taken by PyTorch's fused AdamW."""
    return training.optimizer_offload is OptimizerOffload.CPU
