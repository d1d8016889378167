"""DeepSpeed on a machine without GPU.

accelerate has no such path: with `use_cpu` it trains with plain DDP and never says that it passed over the DeepSpeed
configuration; without it, it finds no backend and every rank believes that it is alone. `enable` therefore replaces
one private method, `PartialState._prepare_backend`, checked against `CHECKED_ACCELERATE`, so that a DeepSpeed launch
without a GPU gets gloo. `tests/integration/test_private_members.py` fails when the method changes.
"""

import os
from typing import Any, Final

from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import count_gpus

CHECKED_ACCELERATE: Final = "1.15.0"


def use_gloo() -> None:
    """Have DeepSpeed compute on the CPU; call it before anything else of DeepSpeed.

    Its shared-memory collective, which it compiles with a C++ compiler on first use, is switched off for gloo.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    with importing():
        import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def enable() -> None:
    """Let accelerate start DeepSpeed on the CPU; does nothing on a machine with a GPU. Call it before `GRPOConfig`.

    Raises RuntimeError with another version of accelerate than the one this was checked against.
    """
    if count_gpus():
        return
    use_gloo()
    import accelerate
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    if accelerate.__version__ != CHECKED_ACCELERATE:
        raise RuntimeError(
            f"training on a CPU was checked with accelerate {CHECKED_ACCELERATE}, not {accelerate.__version__}: "
            "install that version, or check PartialState._prepare_backend and raise CHECKED_ACCELERATE"
        )
    original = PartialState._prepare_backend  # noqa: SLF001 - the reason of this file

    def prepare_backend(state: Any, cpu: Any, *rest: Any) -> tuple[str, Any]:
        launched = "LOCAL_RANK" in os.environ and os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
        if launched and not cpu:
            return "gloo", DistributedType.MULTI_CPU
        found: tuple[str, Any] = original(state, cpu, *rest)
        return found

    PartialState._prepare_backend = prepare_backend  # noqa: SLF001 - the reason of this file


def compute_in_bfloat16(arguments: Any) -> None:
    """Have DeepSpeed hold weights and activations in bfloat16 on a CPU; `TrainingArguments(bf16=True)` wants a GPU."""
    arguments.hf_deepspeed_config.config["bf16"] = {"enabled": True}
