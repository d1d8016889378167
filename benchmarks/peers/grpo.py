"""How TRL's trainer is configured by both contenders that use it. Pure."""

from math import gcd
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.plan import Plan

_MICRO_BATCH: Final = 8
"""Sequences in one forward and backward pass at most: the default of transformers' trainer."""


def micro_batch(plan: Plan) -> int:
    """Sequences in one pass: the most, up to the default, that divide those of an optimiser step."""
    return gcd(_MICRO_BATCH, plan.candidates_per_update)


def trainer_arguments(plan: Plan, output: Path, *, bfloat16: bool = False) -> dict[str, Any]:
    """Keyword arguments of `trl.GRPOConfig`: all answers are sampled once, then trained on in the plan's updates.

    Loss, clipping, scale of advantages and optimiser are those of the run (docs/method.md, "Loss").
    """
    training, generation, size = plan.training, plan.generation, micro_batch(plan)
    return {
        "output_dir": str(output),
        "seed": plan.seed,
        "max_steps": plan.updates,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": plan.candidates_per_update // size,
        "steps_per_generation": plan.candidates // size,
        "num_generations": generation.candidates,
        "max_completion_length": generation.max_tokens,
        "temperature": generation.temperature,
        "shuffle_dataset": False,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "epsilon": training.clip.low,
        "epsilon_high": training.clip.high,
        "beta": training.kl.coefficient,
        "learning_rate": training.rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "bf16": bfloat16,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
    }


def adapter_arguments(plan: Plan) -> dict[str, Any]:
    """Keyword arguments of `peft.LoraConfig`."""
    lora = plan.training.adapter
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.target_modules),
        "task_type": "CAUSAL_LM",
    }
