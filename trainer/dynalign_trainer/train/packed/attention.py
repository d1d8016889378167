"""Attention within the segments of a pack, as an attention implementation of transformers.

On CUDA one call of PyTorch's flash attention for sequences of varying length does all segments; on a CPU, and in
float32, each segment is a call of scaled dot-product attention. The keys of a completion are those of its prompt, then
its own: both kernels take the last query to see all keys, which is what makes the shared prompt work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from dynalign_trainer.train.packed.layout import Segment

IMPLEMENTATION: Final = "dynalign_packed"
"""For `attn_implementation`; the model's forward pass then needs the keyword `segments`, a `Segments`."""
_SHORT: Final = 256
"""Up to so many keys PyTorch's CPU attention is faster in float32: its bfloat16 backward pass takes 3 ms at least."""


@dataclass(frozen=True)
class FlashSegments:
    """S segments for one call of the flash kernel."""

    gather: Tensor
    """Positions of the keys, one segment after the other; a prompt's appear once for each of its completions."""
    query_bounds: Tensor
    """Cumulative numbers of queries, int32, shape (S + 1,)."""
    key_bounds: Tensor
    """Cumulative numbers of keys, int32, shape (S + 1,)."""
    most_queries: int
    most_keys: int


@dataclass(frozen=True)
class MaskedSegment:
    """One segment for a call of its own."""

    part: Segment
    mask: Tensor | None
    """Keys that each query sees, shape (queries, prefix + queries); None for a prompt, which is plainly causal."""


Segments = FlashSegments | Sequence[MaskedSegment]


def build_segments(parts: Sequence[Segment], device: torch.device, dtype: torch.dtype) -> Segments:
    """Prepare what depends on the lengths only, once for all layers; the flash kernel has no float32."""
    if device.type == "cuda" and dtype is not torch.float32:
        return flash_segments(parts, device)
    return [MaskedSegment(part, _mask(part, device)) for part in parts]


def flash_segments(parts: Sequence[Segment], device: torch.device) -> FlashSegments:
    """All segments for one call."""
    keys = [[*range(p.prefix_start, p.prefix_stop), *range(p.start, p.stop)] for p in parts]
    queries, lengths = [p.queries for p in parts], [len(k) for k in keys]
    return FlashSegments(
        gather=torch.tensor(list(chain(*keys)), device=device),
        query_bounds=torch.tensor(list(accumulate(queries, initial=0)), dtype=torch.int32, device=device),
        key_bounds=torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device),
        most_queries=max(queries),
        most_keys=max(lengths),
    )


def _mask(part: Segment, device: torch.device) -> Tensor | None:
    if not part.prefix:
        return None
    return torch.ones(part.queries, part.prefix + part.queries, dtype=torch.bool, device=device).tril_(part.prefix)


def attend(
    module: Any,  # noqa: ARG001 - the signature is transformers'
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the same
    *,
    segments: Segments,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a whole pack: query (1, heads, N, D), key and value (1, key heads, N, D) to (1, N, heads, D)."""
    if isinstance(segments, FlashSegments):
        return _all_at_once(query, key, value, segments, scaling), None
    return _one_by_one(query, key, value, segments, scaling), None


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[MaskedSegment], scale: float | None
) -> Tensor:
    lengths = [segment.part.queries for segment in segments]
    # Splitting, unlike slicing, has a backward pass that writes every gradient once.
    queries, keys, values = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
    prompts = {segment.part.start: number for number, segment in enumerate(segments)}
    outputs = []
    for q, k, v, segment in zip(queries, keys, values, segments, strict=True):
        if segment.mask is not None:
            prompt = prompts[segment.part.prefix_start]
            k, v = torch.cat([keys[prompt], k], dim=2), torch.cat([values[prompt], v], dim=2)  # noqa: PLW2901
        output = _attention(q, k, v, segment.mask, scale)
        outputs.append(output.to(query.dtype))
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    if k.size(2) <= _SHORT:
        q, k, v = q.float(), k.float(), v.float()
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)


def _all_at_once(query: Tensor, key: Tensor, value: Tensor, segments: FlashSegments, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    keys, values = (tensor[0].transpose(0, 1)[segments.gather] for tensor in (key, value))
    output = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        keys,
        values,
        segments.query_bounds,
        segments.key_bounds,
        segments.most_queries,
        segments.most_keys,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    return cast("Tensor", output)[None]


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)
