"""What a model's first attention layer is called with, found on the meta device: the pass ends there, before experts.

An attention implementation of transformers gets the arguments of the forward pass only where every module hands them
on, and a mask only as the model's code makes it. Neither can be read from a configuration.
"""

from typing import Any, Final

from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

UNKNOWN_ARGUMENTS: Final = frozenset({"position_bias", "indices", "block_indices"})
"""Arguments of transformers' attention functions that change the result and that the Packed backend does not know."""
OWN_MASK: Final = "an attention mask of the model's own"
_IMPLEMENTATION: Final = "dynalign_probe"
_MARK: Final = object()
_TOKENS: Final = 4


class _CalledError(Exception):
    """Ends the forward pass at the first call."""

    def __init__(self, obstacles: list[str]) -> None:
        super().__init__(obstacles)
        self.obstacles = obstacles


def probe_attention(model: Any) -> list[str]:
    """What keeps the Packed backend's attention from taking the place of this model's; the model lies on meta."""
    import torch

    ids = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    # Without a mask, transformers would look for several sequences in the positions, which have no values here.
    given = {"input_ids": ids, "position_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    before = model.config._attn_implementation  # noqa: SLF001 - there is no other way to read it
    model.set_attn_implementation(_IMPLEMENTATION)
    try:
        model.base_model(**given, segments=_MARK)
    except _CalledError as call:
        return call.obstacles
    except Exception as error:  # noqa: BLE001 - what a forward pass on meta raises depends on the model
        return [f"a forward pass that cannot be looked into ({type(error).__name__})"]
    finally:
        model.set_attn_implementation(before)
    return ["attention that transformers does not let be replaced"]


def _attend(
    _module: Any,
    _query: Any,
    _key: Any,
    _value: Any,
    attention_mask: Any = None,
    *,
    segments: Any = None,
    **others: Any,
) -> None:
    unknown = sorted(name for name in UNKNOWN_ARGUMENTS & others.keys() if others[name] is not None)
    obstacles = [f"attention with {name}" for name in unknown]
    if segments is not _MARK:
        obstacles.append("attention that is not given the arguments of the forward pass")
    if attention_mask is not None:
        obstacles.append(OWN_MASK)
    raise _CalledError(obstacles)


def _mask(*_: Any, use_vmap: bool = False, **__: Any) -> None:
    if use_vmap:
        raise _CalledError([OWN_MASK])


AttentionInterface.register(_IMPLEMENTATION, _attend)
AttentionMaskInterface.register(_IMPLEMENTATION, _mask)
