"""What this machine offers to training."""

import os

from dynalign_contract.settings import DType


def count_gpus() -> int:
    """CUDA devices that PyTorch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def count_cores() -> int:
    """Cores that this process may use: its affinity, or `OMP_NUM_THREADS` where that is less (a container's limit)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(limit)) if limit.isdecimal() and int(limit) > 0 else available


def use_bfloat16(dtype: DType) -> bool:
    """Whether weights and activations are bfloat16; `Auto` is what the inference engine takes it for."""
    return dtype is DType.BFLOAT16 or (dtype is DType.AUTO and count_gpus() > 0)
