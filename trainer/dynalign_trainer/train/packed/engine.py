"""DeepSpeed around the packed policy: start, checkpoints, whole tensors."""

import os
from pathlib import Path
from typing import Any

import torch

from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16
from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed
from dynalign_trainer.train.deepspeed.configuration import COLLECTIVE_TIMEOUT, deepspeed_config, is_offloaded
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.policy import causal_lm, load_policy, restore_fp32


def start_distributed() -> None:
    """Meet the other processes that torchrun started; does nothing when they have met."""
    has_gpu = count_gpus() > 0
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        cpu_deepspeed.use_gloo()
    with importing():
        import deepspeed

    deepspeed.init_distributed(dist_backend="nccl" if has_gpu else "gloo", timeout=COLLECTIVE_TIMEOUT)


def engine_config(job: TrainJob) -> dict[str, Any]:
    """DeepSpeed's configuration. It counts one micro-batch a step, for the trainer says where steps end."""
    return deepspeed_config(job.training) | {
        "bf16": {"enabled": use_bfloat16(job.dtype)},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": job.training.max_grad_norm,
    }


def start_engine(job: TrainJob) -> Any:
    """The job's policy as a DeepSpeed engine, ready for its first step.

    Raises BadConfigError when the model cannot be packed or does not have the adapter's modules.
    """
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    from dynalign_trainer.models.packable import check_packable
    from dynalign_trainer.train.deepspeed.state import use_plain_checkpoints
    from dynalign_trainer.train.packed.attention import IMPLEMENTATION
    from dynalign_trainer.train.packed.policy import PackedPolicy

    config, training = engine_config(job), job.training
    is_sharded = training.zero_stage == 3
    # While it is alive, from_pretrained spreads the weights over the ranks as it loads them.
    sharding = HfDeepSpeedConfig(config) if is_sharded else None
    policy = load_policy(job, IMPLEMENTATION, _linear(job))
    del sharding
    check_packable(causal_lm(policy))
    module = PackedPolicy(policy, job.temperature)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    fused = is_offloaded(training) or None
    optimizer = torch.optim.AdamW(trained, lr=training.rate, weight_decay=0.0, fused=fused)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    use_plain_checkpoints(engine)
    restore_fp32(job, policy)
    return engine


def _linear(job: TrainJob) -> Any:
    """The class of linear layers with an adapter; None for PEFT's own.

    On a GPU, and on a CPU that multiplies bfloat16, products in float32 would be slower; with ZeRO-3 a layer's weights
    are there only while its own forward pass runs.
    """
    from dynalign_trainer.train.packed.lora_linear import AdaptedLinear
    from dynalign_trainer.train.packed.precision import multiplies_bfloat16

    in_float32 = count_gpus() == 0 and not (use_bfloat16(job.dtype) and multiplies_bfloat16())
    return AdaptedLinear if in_float32 and job.training.zero_stage < 3 else None


def save_checkpoint(engine: Any, folder: Path) -> list[Path]:
    """Write this rank's share of a checkpoint: what is trained, and the optimiser. Returns its files.

    A collective call.
    """
    from dynalign_trainer.train.deepspeed.state import take_written

    engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False, exclude_frozen_parameters=True)
    return take_written(engine)


def load_checkpoint(engine: Any, folder: Path) -> None:
    """Go on from a checkpoint; a collective call. Raises RuntimeError when DeepSpeed finds nothing in it."""
    path, _ = engine.load_checkpoint(str(folder.parent), tag=folder.name, load_module_strict=False)
    if path is None:
        raise RuntimeError(f"DeepSpeed finds no checkpoint in {folder}, although its digests are right")
