"""Settings of a run to the arguments of TRL's trainer."""

from typing import Any, Final

from dynalign_contract.settings import LossAggregation
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16
from dynalign_trainer.train.checkpoints import KEPT_CHECKPOINTS
from dynalign_trainer.train.deepspeed.configuration import COLLECTIVE_TIMEOUT, deepspeed_config, is_offloaded
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.trl.schedule import Schedule

_LOSS_TYPES: Final = {
    LossAggregation.TOKEN_MEAN: "dapo",
    LossAggregation.SEQUENCE_MEAN: "grpo",
    LossAggregation.CONSTANT: "dr_grpo",
    LossAggregation.SEQUENCE_RATIO: "grpo",
}
_AUTO: Final = (
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "train_batch_size",
    "gradient_clipping",
)
"""Taken by DeepSpeed from the trainer's arguments."""


def trainer_arguments(job: TrainJob, schedule: Schedule) -> dict[str, Any]:
    """Keyword arguments of `trl.GRPOConfig`.

    Groups and rewards are recorded, so `num_generations` only has to satisfy TRL's check that it divides a generation
    batch. The KL term is left to the replay (`beta`); its plain k3 estimator is that of docs/method.md ("Loss"),
    without TRL's importance weight. The learning rate is constant: an iteration has few steps. Dr. GRPO's length is
    `maxTokens`.
    """
    training = job.training
    gspo = training.aggregation is LossAggregation.SEQUENCE_RATIO
    engine = deepspeed_config(training) | {"bf16": {"enabled": "auto"}} | dict.fromkeys(_AUTO, "auto")
    return {
        "output_dir": str(job.work),
        "deepspeed": engine,
        "bf16": use_bfloat16(job.dtype) and count_gpus() > 0,
        "seed": job.seed,
        "max_steps": len(job.order(schedule.steps)),
        "per_device_train_batch_size": schedule.micro_batch,
        "gradient_accumulation_steps": schedule.micro_batches,
        "num_generations": schedule.ranks * schedule.micro_batches * schedule.micro_batch,
        "loss_type": _LOSS_TYPES[training.aggregation],
        "importance_sampling_level": "sequence" if gspo else "token",
        "epsilon": training.clip.low,
        "epsilon_high": training.clip.high,
        "delta": training.clip.dual,
        "beta": 0.0,
        "use_bias_correction_kl": False,
        "router_aux_loss_coef": 0.0,
        "temperature": job.temperature,
        "max_completion_length": job.max_tokens,
        "scale_rewards": "none",
        "shuffle_dataset": False,
        "learning_rate": training.rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused" if is_offloaded(training) else "adamw_torch",
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing is not False,
        "ddp_timeout": int(COLLECTIVE_TIMEOUT.total_seconds()),
        "save_strategy": "no",  # ReplayCallback says when
        "save_total_limit": KEPT_CHECKPOINTS,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }
