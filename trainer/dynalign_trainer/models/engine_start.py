"""Start of vLLM, on a CPU and on a GPU: environment, arguments, and what its failures mean.

Two phases tell the causes apart. The configuration is checked first, without a device: what fails there is wrong with
the model or with the settings. What fails later may be the device's or the volume's condition of the moment, which the
next attempt does not meet.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadConfigError, BadInputError, DeviceBusyError, StageError
from dynalign_contract.settings import DType, EngineSettings
from dynalign_trainer.models.engine_weights import summary
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import count_gpus, prepare_devices

_UNUSED: Final = ("sklearn", "scipy")
_CPU_STEP_TOKENS: Final = 2048
"""Tokens that one step reads on a CPU (more only for a longer prompt): seconds, after which SIGTERM is looked at."""
_GPU_MEMORY_SHARE: Final = 0.9
_CPU_BLOCK: Final = 32
"""Tokens in a block of the key-value cache; vLLM's CPU default of 128 finds no shared prefix in short prompts."""
_BUSY_DEVICE: Final = "Free memory on device"
_SMALL_DEVICE: Final = ("No available memory for the cache blocks", "KV cache is needed")
"""Sentences of vLLM 0.31 (v1/worker/utils.py, v1/core/kv_cache_utils.py) about a device's memory."""


@dataclass(frozen=True)
class Lora:
    """Adapters that the engine must have room for."""

    max_rank: int
    count: int


def prepare_environment() -> None:
    """Set what vLLM and OpenMP read when they are loaded. What the pod or the user has set stays, caches above all.

    On a CPU waiting threads must not spin: on shared cores, or under a CPU quota, sampling is 10 times slower when they
    do. On a GPU vLLM chooses the number of threads itself, and its workers are spawned: a process that has threads, or
    has looked at CUDA, cannot be forked safely.
    """
    prepare_devices()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if count_gpus():
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")


def import_libraries() -> None:
    """Import what an engine needs, which takes seconds, and on a cold node many.

    transformers imports scikit-learn and SciPy, 140 MB, for assisted generation and the losses of object detection.
    """
    prepare_environment()
    with importing(*_UNUSED):
        import transformers  # noqa: F401
        from vllm import LLM, EngineArgs, SamplingParams  # noqa: F401


def engine_arguments(
    folder: Path,
    settings: EngineSettings,
    max_length: int,
    *,
    lora: Lora | None,
    on_gpu: bool,
    only_reads: bool = False,
    has_weights: bool = True,
) -> dict[str, Any]:
    """Build the keyword arguments of `vllm.LLM`; `max_length` is the context window in tokens.

    Adapters are the engine's business on a GPU only; on a CPU weights are exchanged (`engine_weights`). An engine that
    `only_reads` compiles nothing and captures no graphs, which takes longer than what they save in reading. One without
    `has_weights` starts with random ones and expects to be given others (`engine_weights.StoredWeights`).
    """
    device: dict[str, Any]
    if on_gpu:
        device = {
            "tensor_parallel_size": settings.tensor_parallel,
            "gpu_memory_utilization": _GPU_MEMORY_SHARE,
            "enforce_eager": only_reads,
        }
        if lora is not None:
            device |= {"enable_lora": True, "max_lora_rank": lora.max_rank, "max_loras": lora.count}
    else:
        device = {
            "enforce_eager": True,
            "block_size": _CPU_BLOCK,
            "kv_cache_memory_bytes": settings.memory_gib << 30,
            # vLLM 0.31 cannot take back the draw of a seeded request whose prompt it reads in pieces, on a CPU
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_STEP_TOKENS, max_length),
        }
    return {
        "model": str(folder),
        "dtype": _dtype(settings.dtype, on_gpu=on_gpu),
        "max_model_len": max_length,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "trust_remote_code": False,
        "seed": 0,
        **({} if has_weights else {"load_format": "dummy"}),
        **device,
    }


def start_llm(arguments: dict[str, Any]) -> Any:
    """Start `vllm.LLM`.

    Raises BadInputError for a model that vLLM does not take, BadConfigError for settings that the device's memory does
    not allow, DeviceBusyError while another process holds that memory. OSErrors with an errno pass through: they are
    about the volume or the caches, not about the model.
    """
    import torch
    from safetensors import SafetensorError
    from vllm import LLM, EngineArgs
    from vllm.usage.usage_lib import UsageContext

    try:
        EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
        return LLM(**arguments)
    except torch.OutOfMemoryError as error:
        raise BadConfigError(
            f"the model does not fit into the GPU's memory ({summary(error)}). Raise spec.engine.tensorParallel, or "
            "use GPUs with more memory."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _explain(error, arguments) from error
    except (ValueError, KeyError, NotImplementedError, SafetensorError) as error:
        raise _explain(error, arguments) from error


def _explain(error: Exception, arguments: dict[str, Any]) -> StageError:
    """Translate an error of vLLM's start into one of the stage's."""
    text = str(error)
    if _BUSY_DEVICE in text:
        return DeviceBusyError(
            f"another process still holds memory of the GPU ({summary(error)}). The next attempt tries again; if it "
            "goes on, look for other users of the GPU (time-slicing, MPS, processes outside Kubernetes)."
        )
    if any(sentence in text for sentence in _SMALL_DEVICE):
        return BadConfigError(
            f"the device's memory holds the model, but not the key-value cache of a context of "
            f"{arguments['max_model_len']} tokens ({summary(error)}). Lower spec.engine.maxLength, or raise "
            "spec.engine.tensorParallel (GPU) or spec.engine.memoryGib (CPU)."
        )
    return BadInputError(
        f"vLLM cannot start with the model in {arguments['model']}: {summary(error)}. Name a model in spec.model.uri "
        "that vLLM supports on this device, or adapt spec.engine (maxLength, memoryGib, tensorParallel) to it."
    )


def _dtype(dtype: DType, *, on_gpu: bool) -> str:
    """Name a precision for vLLM; `Auto` is bfloat16 on a GPU and float32 on a CPU."""
    if dtype is DType.AUTO:
        return "bfloat16" if on_gpu else "float32"
    return "float32" if dtype is DType.FLOAT32 else "bfloat16"
