"""TRL's GRPOTrainer, as the contenders that train by it open it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from benchmarks.peers.grpo import adapter_arguments, trainer_arguments
from benchmarks.peers.plan import Plan
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16


def open_trainer(
    plan: Plan, output: Path, reward: Callable[..., list[float]], rollout: Callable[..., dict[str, Any]] | None = None
) -> GRPOTrainer:
    """A trainer with the model, a fresh adapter and the plan's prompts.

    It samples by itself where no `rollout` hands it answers.
    """
    bfloat16 = use_bfloat16(plan.engine.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        plan.model, dtype=torch.bfloat16 if bfloat16 else torch.float32, local_files_only=True
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**trainer_arguments(plan, output, bfloat16=bfloat16 and count_gpus() > 0)),
        train_dataset=Dataset.from_list([{"prompt": p.messages, "prompt_id": p.prompt_id} for p in plan.prompts]),
        processing_class=AutoTokenizer.from_pretrained(plan.model, local_files_only=True),
        peft_config=LoraConfig(**adapter_arguments(plan)),
        rollout_func=rollout,
    )
