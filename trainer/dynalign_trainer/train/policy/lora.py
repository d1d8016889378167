"""The LoRA adapter: made, continued, written (PEFT)."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.files import atomic_path, write_bytes
from dynalign_contract.settings import LoraSettings
from dynalign_trainer.models.files import read_tensor_files
from dynalign_trainer.models.lora_targets import check_targets
from dynalign_trainer.models.plain_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_plain_adapter
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import use_bfloat16
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.fp32_weights import gather_fp32

_ADAPTER_NAME: Final = "default"
"""PEFT's name of the one adapter of a model; it stands in the names of parameters, not in those of files."""
_BASE_NAME: Final = "model"
"""Written instead of the base model's path: an adapter must not depend on the machine that trained it."""


def check_adapter(folder: Path, lora: LoraSettings) -> None:
    """Make sure that an adapter has the shape that the run asks for.

    `targetModules: [Auto]` takes the modules that the adapter has. Raises BadInputError when its configuration cannot
    be read, BadConfigError when `training.lora` has changed.
    """
    found = read_adapter(folder)
    check_plain_adapter(folder)
    for field in ("rank", "alpha", "dropout"):
        if getattr(found, field) != getattr(lora, field):
            _refuse(field, getattr(lora, field), getattr(found, field))
    if not lora.is_auto and set(found.target_modules) != set(lora.target_modules):
        _refuse("targetModules", sorted(lora.target_modules), sorted(found.target_modules))


def read_adapter(folder: Path) -> LoraSettings:
    """The shape of an adapter. Raises BadInputError when its configuration cannot be read."""
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_bytes())
        return LoraSettings(
            rank=config["r"],
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            target_modules=tuple(config["target_modules"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(
            f"{path} is not the configuration of a LoRA adapter ({error}). Remove the folder {folder} to have its "
            "iteration's training run again."
        ) from error


def _refuse(field: str, wanted: object, found: object) -> None:
    raise BadConfigError(
        f"spec.training.lora.{field} is {wanted} but the adapter that training continues from has {found}: an adapter "
        "keeps its shape for a whole run. Set it back, or start a new run."
    )


def load_adapter_policy(job: TrainJob, attention: str | None = None, linear: Any = None) -> Any:
    """The base model with a trainable adapter: the job's own, or a fresh one that is zero in effect.

    A fresh adapter depends on the job's seed only. `attention` is an implementation that transformers knows, `linear` a
    class of PEFT's layers for linear layers, None for its own. Raises BadConfigError when a target cannot be trained,
    merged and sampled alike.
    """
    with importing():
        import torch
        from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
        from transformers import AutoModelForCausalLM, set_seed

    dtype = torch.bfloat16 if use_bfloat16(job.dtype) else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=dtype, attn_implementation=attention, local_files_only=True
    )
    check_targets(model, job.training.adapter.target_modules, read_tensor_files(job.model))
    # Mixed precisions of base and adapter break ZeRO-3's coalesced gathering, so there the adapter keeps the base's.
    autocast = job.training.zero_stage < 3
    if job.start is not None:
        stored = PeftConfig.from_pretrained(str(job.start))
        _use_linear(stored, linear)
        return PeftModel.from_pretrained(
            model,
            str(job.start),
            config=stored,
            is_trainable=True,
            autocast_adapter_dtype=autocast,
            local_files_only=True,
        )
    set_seed(job.seed)
    lora = job.training.adapter
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        task_type=TaskType.CAUSAL_LM,
    )
    _use_linear(config, linear)
    return get_peft_model(model, config, autocast_adapter_dtype=autocast)


def _use_linear(config: Any, linear: Any) -> None:
    """Have PEFT make adapters of linear layers by another class than its own, in the way that it documents.

    https://huggingface.co/docs/peft/developer_guides/custom_models
    """
    if linear is not None:
        import torch

        config._register_custom_module({torch.nn.Linear: linear})  # noqa: SLF001 - documented by this name


class AdapterWriter:
    """Remembers the adapter as it is, and writes what it has become."""

    def __init__(self, job: TrainJob, policy: Any) -> None:
        self._job = job
        self._policy = policy
        self._before = adapter_state(policy)

    def write(self) -> float:
        """Write the adapter on rank 0; returns its Euclidean distance from before."""
        import torch.distributed as dist

        after = adapter_state(self._policy)
        if dist.get_rank() == 0:
            write_adapter(self._job.output, self._policy, after)
        return norm_change(self._before, after)


def copy_adapter(job: TrainJob) -> None:
    """Write the adapter that training would have started from; for one process."""
    policy = load_adapter_policy(job)
    write_adapter(job.output, policy, adapter_state(policy))


def adapter_state(policy: Any) -> dict[str, Any]:
    """The adapter's tensors by their file names, float32 copies on the CPU of every rank; a collective call."""
    from peft import get_peft_model_state_dict

    trained = {name: gather_fp32(p).detach() for name, p in policy.named_parameters() if p.requires_grad}
    tensors = get_peft_model_state_dict(policy, state_dict=trained, save_embedding_layers=False)
    return {name: tensor.float().cpu().clone().contiguous() for name, tensor in sorted(tensors.items())}


def adapter_tensors(job: TrainJob) -> Iterator[tuple[str, Any]]:
    """Names of the policy's parameters and their stored values before training; none for a fresh adapter."""
    if job.start is None:
        return
    from safetensors.torch import load_file

    for name, value in load_file(job.start / ADAPTER_WEIGHTS).items():
        module, _, last = name.rpartition(".")
        yield f"{module}.{_ADAPTER_NAME}.{last}", value


def norm_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Euclidean distance between two states of an adapter."""
    total = sum(float((after[name] - before[name]).double().pow(2).sum()) for name in after)
    return float(total**0.5)


def write_adapter(folder: Path, model: Any, tensors: Mapping[str, Any]) -> None:
    """Write the two files that PEFT and vLLM load; the same adapter gives the same bytes."""
    from safetensors.torch import save_file

    config = model.peft_config[_ADAPTER_NAME].to_dict()
    config |= {"base_model_name_or_path": _BASE_NAME, "inference_mode": True, "revision": None}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    with atomic_path(folder / ADAPTER_WEIGHTS) as temporary:
        save_file(dict(tensors), os.fspath(temporary), metadata={"format": "pt"})
    write_bytes(folder / ADAPTER_CONFIG, json.dumps(plain, indent=2, sort_keys=True, default=str).encode())
