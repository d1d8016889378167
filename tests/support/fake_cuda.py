"""Prints what vLLM makes of the engine's arguments on a GPU: `fake_cuda.py MODEL TENSOR_PARALLEL,ADAPTERS,DTYPE ...`.

Runs as a process of its own. The device is a stand-in (an H100 with 80 GB); everything else is vLLM's and dynalign's own
code. Checked against vLLM 0.31.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any


def pretend_to_have_gpus() -> None:
    import torch

    from dynalign_trainer.runtime import machine

    machine.is_cpu_build = lambda: False
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 8
    torch.accelerator.device_count = lambda: 8


def pretend_to_be_the_gpu_build() -> None:
    for name in ("_C_stable_libtorch", "_moe_C_stable_libtorch", "_C", "_moe_C", "_qutlass_C"):
        sys.modules[f"vllm.{name}"] = types.ModuleType(f"vllm.{name}")
    from vllm import platforms
    from vllm.config import vllm as configuration
    from vllm.platforms import cuda
    from vllm.platforms.interface import DeviceCapability

    h100 = cuda.NonNvmlCudaPlatform
    answers: dict[str, Any] = {
        "get_device_capability": lambda *_, **__: DeviceCapability(9, 0),
        "get_device_name": lambda *_, **__: "NVIDIA H100 80GB HBM3",
        "get_device_total_memory": lambda *_, **__: 80 << 30,
        "is_fully_connected": lambda *_: True,
        "num_compute_units": lambda *_, **__: 132,
        "device_count": lambda *_: 8,
    }
    for name, answer in answers.items():
        setattr(h100, name, classmethod(answer))
    platforms._current_platform = h100()
    configuration.HAS_TRITON = True  # no CPU has a driver for it


def describe(model: Path, tensor_parallel: int, adapters: int, dtype: str) -> dict[str, Any]:
    from vllm import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.system_utils import get_mp_context

    from dynalign_contract.settings import DType, EngineSettings
    from dynalign_trainer.models.engine_start import Lora, engine_arguments
    from dynalign_trainer.runtime.machine import count_gpus

    lora = Lora(max_rank=16, count=adapters) if adapters else None
    settings = EngineSettings(tensor_parallel=tensor_parallel, dtype=DType(dtype))
    arguments = engine_arguments(model, settings, 256, lora=lora, on_gpu=count_gpus() > 0)
    config = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
    return {
        "dtype": str(config.model_config.dtype),
        "executor": config.parallel_config.distributed_executor_backend,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
        "start_method": get_mp_context().get_start_method(),
        "max_loras": config.lora_config.max_loras if config.lora_config else None,
        "lora_dtype": str(config.lora_config.lora_dtype) if config.lora_config else None,
        "chunked_prefill": config.scheduler_config.enable_chunked_prefill,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "logprobs_mode": config.model_config.logprobs_mode,
        "second_runner": config.use_v2_model_runner,
        "asynchronous": config.scheduler_config.async_scheduling,
        "graphs": len(config.compilation_config.cudagraph_capture_sizes or ()),
    }


def main() -> None:
    from dynalign_trainer.models.engine_start import prepare_environment

    pretend_to_have_gpus()
    prepare_environment()
    from vllm import EngineArgs

    # vLLM imports the model's class to look at it and remembers what it saw; the GPU build's kernels are not here.
    EngineArgs(model=sys.argv[1], max_model_len=256).create_model_config()
    pretend_to_be_the_gpu_build()
    for case in sys.argv[2:]:
        tensor_parallel, adapters, dtype = case.split(",")
        found = describe(Path(sys.argv[1]), int(tensor_parallel), int(adapters), dtype)
        print(json.dumps({"case": case, **found}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
