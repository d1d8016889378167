"""Flat training state that so many ranks hold, cut for another number of them. Pure but for `StoredTensor.read`.

ZeRO lays trained values one after another and gives every rank an equal part, the last ones padded: with stages 1 and 2
all values of a parameter group at once, with stage 3 those of each parameter for itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """Values that are spread over the ranks as a whole."""

    numel: int
    before: int
    """Values that each rank held of it, padding included."""
    after: int
    """Values that each rank is to hold."""


@dataclass(frozen=True)
class Piece:
    """Values that lie together in what one rank held."""

    rank: int | None
    """Whose; None for padding."""
    start: int
    """Within all that the rank held of these blocks."""
    numel: int


def plan_share(blocks: Sequence[Block], rank: int) -> Iterator[Piece]:
    """Where a rank finds its share of these blocks, in order."""
    base = 0
    for block in blocks:
        at = first = min(rank * block.after, block.numel)
        last = min(first + block.after, block.numel)
        while at < last:
            holder, offset = divmod(at, block.before)
            numel = min(last - at, block.before - offset)
            yield Piece(holder, base + offset, numel)
            at += numel
        if padding := block.after - (last - first):
            yield Piece(None, 0, padding)
        base += block.before


def read_share(pieces: Sequence[Piece], held: Sequence[Sequence[Any]]) -> Any:
    """A rank's share as one flat tensor; `held` are, of each rank, flat stored tensors that lie one after another."""
    import torch

    share = torch.zeros(sum(piece.numel for piece in pieces))
    at = 0
    for piece in pieces:
        if piece.rank is not None:
            _read(share[at : at + piece.numel], held[piece.rank], piece.start)
        at += piece.numel
    return share


def _read(target: Any, tensors: Sequence[Any], start: int) -> None:
    """Fill a flat tensor with the values from `start` on."""
    done, before = 0, 0
    for tensor in tensors:
        first = start + done - before
        if first < tensor.numel and done < len(target):
            numel = min(len(target) - done, tensor.numel - first)
            target[done : done + numel] = tensor.read(first, first + numel)
            done += numel
        before += tensor.numel
    if done < len(target):
        raise RuntimeError(f"a rank's state ends {len(target) - done} values too early")
