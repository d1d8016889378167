"""What a LoRA adapter may hold so that trainer, engine and export play the same policy: plain updates of matrices.

A setting or a tensor that one of them would pass over is refused, never dropped.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.folder import read_json

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"

_PREFIX: Final = "base_model.model."
_DOWN: Final = ".lora_A.weight"
_UP: Final = ".lora_B.weight"
_FREE: Final = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules"),
        *("layers_to_transform", "layers_pattern", "runtime_config"),
    }
)
"""Fields of PEFT's configuration that may have any value: the tensors themselves say what they led to."""
_INERT: Final = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),  # the others change the base model's weights
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}
"""Fields that have a value where the feature is off. Any other field, also one of a later PEFT, must be empty."""


def read_plain_config(folder: Path) -> dict[str, Any]:
    """The configuration of a plain LoRA adapter. Raises BadInputError naming the file and the fields."""
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    if config.get("peft_type", "LORA") != "LORA":
        raise BadInputError(f"{path} describes peft_type {config['peft_type']!r}; only LoRA adapters can be merged.")
    if used := sorted(name for name, value in config.items() if not _is_plain(name, value)):
        raise BadInputError(
            f"{path} sets {', '.join(used)}; only plain LoRA adapters can be merged. Remove the folder {folder} to "
            "have its iteration's training run again."
        )
    return config


def find_pairs(names: Iterable[str], folder: Path) -> dict[str, tuple[str, str]]:
    """Name of each adapted tensor of the base model -> the names of A and B, of all tensors of an adapter.

    Raises BadInputError naming a tensor that is no part of such a pair (of an embedding, a bias, DoRA's magnitude, a
    whole module that was saved): the engine and the export would play the policy without it.
    """
    names = set(names)
    pairs = {
        name.removeprefix(_PREFIX).removesuffix(_DOWN) + ".weight": (name, name.removesuffix(_DOWN) + _UP)
        for name in sorted(names)
        if name.startswith(_PREFIX) and name.endswith(_DOWN)
    }
    played = {name for pair in pairs.values() for name in pair}
    if foreign := sorted(names - played):
        raise BadInputError(
            f"{folder / ADAPTER_WEIGHTS} holds {foreign[0]}{_and_more(foreign)}, which only training knows: the model "
            "would be sampled, judged and exported without it. Adapt linear layers alone "
            "(spec.training.lora.targetModules), and remove the folder to have its iteration's training run again."
        )
    if absent := sorted(played - names):
        raise BadInputError(
            f"{folder / ADAPTER_WEIGHTS} lacks {absent[0]}{_and_more(absent)}. Remove the folder to have its "
            "iteration's training run again."
        )
    if not pairs:
        raise BadInputError(
            f"{folder / ADAPTER_WEIGHTS} holds no tensor. Remove the folder to have its iteration's training run again."
        )
    return pairs


def check_plain_adapter(folder: Path) -> None:
    """Raise BadInputError when a folder is no adapter, cannot be read, or holds more than plain updates."""
    from safetensors import SafetensorError, safe_open

    read_plain_config(folder)
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise unreadable(folder, error) from error
    find_pairs(names, folder)


def unreadable(folder: Path, error: Exception) -> BadInputError:
    """The error that says that an adapter's files are damaged."""
    return BadInputError(
        f"the adapter in {folder} cannot be read ({error}). Remove the folder to have its iteration's training run "
        "again."
    )


def _is_plain(name: str, value: Any) -> bool:
    if name in _FREE:
        return True
    return value in _INERT[name] if name in _INERT else not value


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
