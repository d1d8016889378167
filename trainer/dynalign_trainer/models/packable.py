"""Whether the Packed backend computes a model as transformers does; the model may lie on the meta device.

What it lacks depends on the model alone and never on the machine, so that fetch and training, which both look at it on
the meta device, find the same.
"""

from collections.abc import Iterator
from typing import Any, Final

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.models.logit_map import unread_settings

_LAYERS: Final = {"full_attention", "sliding_attention"}
_MAX_HEAD_SIZE: Final = 256
_HEAD_SIZE_STEP: Final = 8
"""Head sizes that PyTorch's flash attention for varying lengths takes."""


def check_packable(model: Any) -> None:
    """Raise BadConfigError for a model that `PackedPolicy` does not compute as transformers does."""
    if obstacles := find_obstacles(model):
        raise BadConfigError(
            f"spec.training.backend is Packed, which does not compute {' and '.join(obstacles)} of "
            f"{type(model).__name__}. Write backend: Auto or TRL."
        )


def find_obstacles(model: Any) -> list[str]:
    """What the Packed backend does not compute, each as a noun; empty for a model that it can train.

    A model on the meta device is also asked what its attention is called with.
    """
    obstacles = [*_of_layers(model), *_of_heads(model), *unread_settings(model)]
    if obstacles or not next(model.parameters()).is_meta:
        return obstacles
    from dynalign_trainer.models.attention_probe import probe_attention

    return probe_attention(model)


def _of_layers(model: Any) -> Iterator[str]:
    """Layers that mix tokens by other means than causal attention, or decide themselves what a token sees."""
    import torch

    config = model.config.get_text_config()
    layers = sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS)
    yield from (f"layers of type {name}" for name in layers)
    if layers:
        return
    if not getattr(type(model.base_model), "_supports_attention_backend", False):
        yield "attention that transformers does not let be replaced"
    elif any(isinstance(module, torch.nn.Conv1d) for module in model.modules()):
        yield "convolutions over tokens"
    if getattr(config, "use_bidirectional_attention", None) or not getattr(config, "is_causal", True):
        yield "attention to later tokens"


def _of_heads(model: Any) -> Iterator[str]:
    config = model.config.get_text_config()
    if getattr(config, "kv_lora_rank", None):
        yield f"multi-head latent attention (kv_lora_rank {config.kv_lora_rank})"
        return
    sizes = {size for module in model.modules() if isinstance(size := getattr(module, "head_dim", None), int)}
    values = getattr(config, "v_head_dim", None)
    if values is not None and sizes - {values}:
        yield f"attention heads whose values have {values} elements and whose keys have {max(sizes)}"
    elif unfit := sorted(size for size in sizes if size > _MAX_HEAD_SIZE or size % _HEAD_SIZE_STEP):
        yield (
            f"attention heads of {unfit[0]} elements (it takes multiples of {_HEAD_SIZE_STEP} up to {_MAX_HEAD_SIZE})"
        )
