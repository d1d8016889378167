"""Versions of what the stages rest on, and the signature of the kernel that packed attention calls."""

import importlib
import inspect
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch
from torch.nn.attention.varlen import varlen_attn

from benchmarks.gpu_checks.finding import Finding, Place

_PACKAGES: Final = ("torch", "triton", "deepspeed", "transformers", "peft", "accelerate", "pyarrow", "safetensors")
_OLDEST: Final = (2, 11)


def check(place: Place) -> Finding:
    """List versions and devices; DeepSpeed must be importable, which on some machines wants a CUDA compiler."""
    started = time.monotonic()
    importlib.import_module("deepspeed")

    values: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "nvcc": shutil.which("nvcc") is not None,
        "deepspeed_import_seconds": round(time.monotonic() - started, 1),
        "varlen_attn": list(inspect.signature(varlen_attn).parameters),
    }
    if place.is_cuda:
        properties = torch.cuda.get_device_properties(0)
        values |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
        }
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    old = f"PyTorch is {torch.__version__}, and 2.11 is the first one whose varlen_attn knows windows"
    return Finding(values, (old,) if found < _OLDEST else ())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip().split("\n")[0] or None
