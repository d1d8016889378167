"""What matrix products are computed in: bfloat16 where the processor multiplies it, else float32."""

from collections.abc import Iterator
from functools import cache
from typing import Final

import torch
from torch import Tensor

_MULTIPLIES_BFLOAT16: Final = ("avx512_bf16", "amx_bf16", "amx_tile", "avx10_1", "bf16", "sve_bf16")
"""Names that `torch.cpu.get_capabilities` has for such instructions."""


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 matrices.

    On one that has none, such a product takes longer than converting both matrices to float32 and multiplying those,
    and is not more precise.
    """
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _MULTIPLIES_BFLOAT16)


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a product with this tensor is fastest where it lies; results are rounded to its own."""
    is_emulated = tensor.device.type == "cpu" and tensor.dtype is torch.bfloat16 and not multiplies_bfloat16()
    return torch.float32 if is_emulated else tensor.dtype


_ROWS: Final = 4096
"""Rows of a large weight that exist in float32 at one time."""


def to_outputs(inputs: Tensor, weight: Tensor) -> Tensor:
    """Inputs (m, H) times the transpose of a large weight (V, H), shape (m, V), float32."""
    if product_dtype(weight) is weight.dtype:
        return (inputs @ weight.T).float()
    found = inputs.new_empty(len(inputs), len(weight), dtype=torch.float32)
    for rows, part in _converted(weight):
        torch.mm(inputs.float(), part.T, out=found[:, rows])
    return found


def to_inputs(outputs: Tensor, weight: Tensor) -> Tensor:
    """Gradients (m, V), float32, times a large weight (V, H), shape (m, H)."""
    if product_dtype(weight) is weight.dtype:
        return outputs.to(weight.dtype) @ weight
    found = outputs.new_zeros(len(outputs), weight.size(1))
    for rows, part in _converted(weight):
        found.addmm_(outputs[:, rows], part)
    return found


def _converted(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(weight), _ROWS):
        rows = slice(start, start + _ROWS)
        yield rows, weight[rows].float()
