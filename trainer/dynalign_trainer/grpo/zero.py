"""DeepSpeed's configuration, as far as both backends share it."""

from typing import Any


def deepspeed_config(zero_stage: int) -> dict[str, Any]:
    """What does not depend on the batch.

    The optimiser stays PyTorch's AdamW (`zero_allow_untested_optimizer`), whose DeepSpeed counterparts are compiled on
    first use. On a CPU `overlap_comm` has no stream to overlap with.
    """
    import torch

    return {
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": torch.cuda.is_available(),
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
