"""vLLM for the plain scripts, set as dynalign sets it: no ratio comes from a worse setting."""

from typing import Any

from benchmarks.peers.plan import Plan
from dynalign_trainer.models.engine_start import engine_arguments, prepare_environment
from dynalign_trainer.models.folder import context_window
from dynalign_trainer.runtime.machine import count_gpus


def start_vllm(plan: Plan) -> Any:
    """A `vllm.LLM` with the plan's model and a prefix cache, within this process."""
    prepare_environment()
    from vllm import LLM  # noqa: PLC0415 - reads the environment when it is imported

    length = context_window(plan.model, plan.engine.max_length)
    return LLM(**engine_arguments(plan.model, plan.engine, length, lora=None, on_gpu=count_gpus() > 0))
