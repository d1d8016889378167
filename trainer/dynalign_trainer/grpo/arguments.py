"""Settings of a run to the arguments of TRL's trainer and of DeepSpeed."""

from typing import Any, Final

from dynalign_contract.settings import LossAggregation
from dynalign_trainer.grpo.job import TrainJob
from dynalign_trainer.grpo.schedule import Schedule

_LOSS_TYPES: Final = {
    LossAggregation.TOKEN_MEAN: "dapo",
    LossAggregation.SEQUENCE_MEAN: "grpo",
    LossAggregation.CONSTANT: "dr_grpo",
}
_KEPT_CHECKPOINTS: Final = 2
"""The last one, and one to fall back to."""


def deepspeed_config(zero_stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration; `auto` takes the trainer's value.

    The optimiser stays PyTorch's AdamW (`zero_allow_untested_optimizer`), whose DeepSpeed counterparts are compiled on
    first use. On a CPU `overlap_comm` has no stream to overlap with.
    """
    import torch

    return {
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": torch.cuda.is_available(),
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": False},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def trainer_arguments(job: TrainJob, schedule: Schedule) -> dict[str, Any]:
    """Keyword arguments of `trl.GRPOConfig`.

    Groups and rewards are recorded, so `num_generations` only has to satisfy TRL's check that it divides a generation
    batch. The KL term is left to the replay (`beta`); its plain k3 estimator is that of LEARNING section 5, without
    TRL's importance weight. Learning rate constant: an iteration has few steps. Dr. GRPO's length is `maxTokens`.
    """
    import torch

    training, gpu = job.training, torch.cuda.is_available()
    return {
        "output_dir": str(job.work),
        "deepspeed": deepspeed_config(training.zero_stage),
        "bf16": gpu,
        "seed": job.seed,
        "max_steps": schedule.steps,
        "per_device_train_batch_size": schedule.micro_batch,
        "gradient_accumulation_steps": schedule.micro_batches,
        "num_generations": schedule.ranks * schedule.micro_batches * schedule.micro_batch,
        "loss_type": _LOSS_TYPES[training.aggregation],
        "epsilon": training.clip.low,
        "epsilon_high": training.clip.high,
        "beta": 0.0,
        "use_bias_correction_kl": False,
        "router_aux_loss_coef": 0.0,
        "temperature": job.temperature,
        "max_completion_length": job.max_tokens,
        "scale_rewards": "none",
        "shuffle_dataset": False,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_steps,
        "save_total_limit": _KEPT_CHECKPOINTS,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }
