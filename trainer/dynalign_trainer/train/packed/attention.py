"""Attention within the segments of a pack, as an attention implementation of transformers.

The keys of a completion are those of its prompt, then its own. Every kernel takes the last query to see the last key,
which is what makes the shared prompt and windows work.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.models.attention_probe import OWN_MASK, UNKNOWN_ARGUMENTS
from dynalign_trainer.train.packed.block_attention import attend_in_blocks
from dynalign_trainer.train.packed.segments import FlashSegments, MaskedSegment, Segments

IMPLEMENTATION: Final = "dynalign_packed"
"""For `attn_implementation`; the model's forward pass then needs the keyword `segments`, a `Segments`."""


class Kernel(Enum):
    """What computes the attention of a layer."""

    FLASH = auto()
    """PyTorch's flash attention for sequences of varying length: all segments in one call, on CUDA, not in float32."""
    BLOCKS = auto()
    """Products of blocks of queries in float32, on a CPU, see `block_attention`."""
    SDPA = auto()
    """PyTorch's scaled dot-product attention, a call for each segment: on CUDA in float32."""
    MATMUL = auto()
    """Two matrix products for each segment, which keep its probabilities: (heads, queries, keys) in float32."""


def choose_kernel(segments: Segments, softcap: float | None, sinks: Tensor | None) -> Kernel:
    """The fastest kernel that computes a layer: all know windows, but only matrix products know caps and sinks."""
    if softcap is not None or sinks is not None:
        return Kernel.MATMUL
    if segments.has_flash:
        return Kernel.FLASH
    return Kernel.BLOCKS if segments.is_on_cpu else Kernel.SDPA


def attend(
    module: Any,  # noqa: ARG001 - the signature is transformers'
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: int | None,
    *,
    segments: Segments,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of a whole pack: query (1, heads, N, D), key and value (1, key heads, N, D) to (1, N, heads, D).

    `attention_mask` is the layer's window, see `_window_of`; `softcap` bounds the scores, `s_aux` has the sinks, one
    logit a head. Raises BadConfigError for a model whose attention takes more than that.
    """
    if unknown := sorted(name for name in UNKNOWN_ARGUMENTS & others.keys() if others[name] is not None):
        raise BadConfigError(
            f"spec.training.backend is Packed, which does not compute attention with {' and '.join(unknown)}. "
            "Write backend: TRL."
        )
    kernel = choose_kernel(segments, softcap, s_aux)
    if kernel is Kernel.FLASH:
        return _all_at_once(query, key, value, segments.flash, scale=scaling, window=attention_mask), None
    if kernel is Kernel.BLOCKS:
        blocks = segments.blocks(attention_mask, group=query.size(1) // key.size(1))
        return attend_in_blocks(query, key, value, blocks, query.size(-1) ** -0.5 if scaling is None else scaling), None
    compute = partial(_products, softcap=softcap, sinks=s_aux) if kernel is Kernel.MATMUL else _attention
    return _one_by_one(query, key, value, segments.masked(attention_mask), partial(compute, scale=scaling)), None


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[MaskedSegment], compute: Callable[..., Tensor]
) -> Tensor:
    lengths = [segment.part.queries for segment in segments]
    # Splitting, unlike slicing, has a backward pass that writes every gradient once.
    queries, keys, values = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
    prompts = {segment.part.start: number for number, segment in enumerate(segments)}
    outputs = []
    for q, k, v, segment in zip(queries, keys, values, segments, strict=True):
        if segment.kept:
            prompt = prompts[segment.part.prefix_start]
            k = torch.cat([_last(keys[prompt], segment.kept), k], dim=2)  # noqa: PLW2901
            v = torch.cat([_last(values[prompt], segment.kept), v], dim=2)  # noqa: PLW2901
        outputs.append(compute(q, k, v, segment.mask).to(query.dtype))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _last(tensor: Tensor, count: int) -> Tensor:
    """The last positions of a prompt."""
    return tensor if count == tensor.size(2) else tensor.narrow(2, tensor.size(2) - count, count)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float | None) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)


def _products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with capped scores and a sink, a logit that takes its share of the softmax and has no value."""
    if mask is None:
        mask = torch.ones(q.size(2), k.size(2), dtype=torch.bool, device=q.device).tril_()
    k, v = (tensor.repeat_interleave(q.size(1) // k.size(1), dim=1) for tensor in (k, v))
    # In bfloat16 a score of 10 would be 0.02 off, which the flash kernel's are not.
    scores = (q.float() @ k.float().transpose(2, 3)) * (q.size(-1) ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        column = sinks.float().view(1, -1, 1, 1).expand(scores.size(0), -1, scores.size(2), 1)
        scores = torch.cat([scores, column], dim=-1)
    return scores.softmax(dim=-1)[..., : k.size(2)].to(v.dtype) @ v


def _all_at_once(
    query: Tensor, key: Tensor, value: Tensor, segments: FlashSegments, *, scale: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # Unlike indexing, index_select adds the gradients up without sorting the indices.
    keys, values = (tensor[0].transpose(0, 1).index_select(0, segments.gather) for tensor in (key, value))
    output = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        keys,
        values,
        segments.query_bounds,
        segments.key_bounds,
        segments.most_queries,
        segments.most_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )
    return cast("Tensor", output)[None]


def _window_of(*_: Any, local_size: int | None = None, use_vmap: bool = False, **__: Any) -> int | None:
    """Stands for the mask of a kind of layers: its window, None where there is none.

    A model hands its layers what this function makes of the mask that eager attention would get, so that a layer sees
    here what it sees there, whether or not its code also passes `sliding_window`.
    """
    if use_vmap:
        raise BadConfigError(f"spec.training.backend is Packed, which does not compute {OWN_MASK}. Write backend: TRL.")
    return local_size


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, _window_of)
