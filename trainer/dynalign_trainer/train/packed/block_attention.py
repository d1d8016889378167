"""Attention of segments on a CPU: products of blocks of queries in float32, whatever the model computes in.

PyTorch's own is slow in bfloat16 on short segments; in float32 it takes as long as this, but keeps float32 copies of
all that it is given, a prompt's keys once a completion. Here nothing is kept but queries, keys and values as the model
made them; probabilities are computed again. Query heads that share a key head are rows of one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynalign_trainer.train.packed.segments import QueryBlock


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[QueryBlock], scale: float) -> Tensor:
    """Attention of a pack: query (1, heads, N, D), key and value (1, key heads, N, D) to (1, N, heads, D)."""
    return _Attention.apply(query, key, value, blocks, scale)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Attention by blocks whose backward pass computes the probabilities again.

    With P the softmax of S = s Q K^T and O = P V: d V = P^T d O, d S = P (d O V^T - rowsum(P d O V^T)), and from it
    d Q = s d S K and d K = s d S^T Q.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[QueryBlock], scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.blocks, ctx.scale = blocks, scale
        q, k, v = _by_key_head(query.transpose(1, 2), key.size(1)), _wide(key[0]), _wide(value[0])
        out = q.new_empty(*q.shape[:3], v.size(-1))
        for block in blocks:
            probs = _probabilities(q, _keys(k, block), block, scale)
            _rows(out, block).copy_(torch.bmm(probs, _keys(v, block)))
        return _by_token(out, query.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value = ctx.saved_tensors
        heads = key.size(1)
        q, k, v = _by_key_head(query.transpose(1, 2), heads), _wide(key[0]), _wide(value[0])
        g = _by_key_head(grad, heads)
        for_q, for_k, for_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in ctx.blocks:
            keys, outer = _keys(k, block), _rows(g, block)
            probs = _probabilities(q, keys, block, ctx.scale)
            _add_keys(for_v, block, torch.bmm(probs.transpose(1, 2), outer))
            pull = torch.bmm(outer, _keys(v, block).transpose(1, 2)).mul_(probs)
            pull.addcmul_(probs, pull.sum(dim=-1, keepdim=True), value=-1).mul_(ctx.scale)
            _rows(for_q, block).copy_(torch.bmm(pull, keys))
            _add_keys(for_k, block, torch.bmm(pull.transpose(1, 2), _rows(q, block)))
        return (
            _by_token(for_q, query.dtype).transpose(1, 2),
            for_k.to(key.dtype)[None],
            for_v.to(value.dtype)[None],
            None,
            None,
        )


def _rows(tensor: Tensor, block: QueryBlock) -> Tensor:
    """The queries of a block, (key heads, queries * G, D), out of (key heads, N, G, D); a view."""
    return tensor[:, block.queries].flatten(1, 2)


def _keys(tensor: Tensor, block: QueryBlock) -> Tensor:
    """The keys of a block, (key heads, keys, D), out of (key heads, N, D)."""
    own = tensor[:, block.own]
    return own if block.prompt.start == block.prompt.stop else torch.cat([tensor[:, block.prompt], own], dim=1)


def _add_keys(tensor: Tensor, block: QueryBlock, gradient: Tensor) -> None:
    """Add a gradient for `_keys(tensor)` to that for `tensor`."""
    kept = block.prompt.stop - block.prompt.start
    tensor[:, block.prompt] += gradient[:, :kept]
    tensor[:, block.own] += gradient[:, kept:]


def _probabilities(q: Tensor, keys: Tensor, block: QueryBlock, scale: float) -> Tensor:
    """Shape (key heads, queries * G, keys)."""
    bias = block.bias.to(q.dtype).expand(len(keys), -1, -1)
    return torch.baddbmm(bias, _rows(q, block), keys.transpose(1, 2), alpha=scale).softmax(dim=-1)


def _by_key_head(tensor: Tensor, key_heads: int) -> Tensor:
    """(1, N, heads, D) as (key heads, N, G, D) in float32, so that the G heads of a key head are rows of one matrix."""
    _, tokens, _, size = tensor.shape
    split = tensor[0].reshape(tokens, key_heads, -1, size).transpose(0, 1)
    return split.new_empty(split.shape, dtype=_wide_type(tensor)).copy_(split)


def _by_token(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """(key heads, N, G, D) as (1, N, heads, D)."""
    turned = tensor.transpose(0, 1)
    return turned.new_empty(turned.shape, dtype=dtype).copy_(turned).flatten(1, 2)[None]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_wide_type(tensor))


def _wide_type(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
