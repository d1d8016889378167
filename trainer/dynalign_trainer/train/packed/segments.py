"""The segments of a pack, prepared once for all layers of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Final

import torch
from torch import Tensor

from dynalign_trainer.train.packed.layout import Segment

_BLOCK: Final = 128
"""Queries of a block: enough rows for a fast product, and few enough for their scores to stay in a core's cache."""


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
    kept: int
    """Last positions of the prompt that are among its keys: those within the window of its first query."""
    mask: Tensor | None
    """Keys that each query sees, bool, shape (queries, kept + queries); None where these are plainly causal."""


@dataclass(frozen=True)
class QueryBlock:
    """Some queries of a segment, the keys that any of them sees, and which of these each one sees."""

    queries: slice
    """Positions of the queries."""
    prompt: slice
    """Positions of the keys that belong to the prompt; empty for a prompt's own queries."""
    own: slice
    """Positions of the other keys: the segment's own, up to the last query."""
    bias: Tensor
    """0 for a key that is seen, else -inf; float32, shape (queries * G, keys), each row G times."""


class Segments:
    """The segments of one pack, in the form that each kernel takes.

    A window of W means that a token sees itself and the W - 1 positions before it in its own row, prompt included; the
    keys of a completion are its row's, so the distance between two of them is that of their positions.
    """

    def __init__(self, parts: Sequence[Segment], device: torch.device, dtype: torch.dtype) -> None:
        self.has_flash = device.type == "cuda" and dtype is not torch.float32
        """Whether the flash kernel computes on this device in this type."""
        self.is_on_cpu = device.type == "cpu"
        self._parts = parts
        self._device = device
        self._longest = max(part.prefix + part.queries for part in parts)
        self._masked: dict[int | None, Sequence[MaskedSegment]] = {}
        self._blocks: dict[tuple[int | None, int], Sequence[QueryBlock]] = {}

    @cached_property
    def flash(self) -> FlashSegments:
        """All segments for one call."""
        parts, device = self._parts, self._device
        keys = [[*range(p.prefix_start, p.prefix_stop), *range(p.start, p.stop)] for p in parts]
        queries, lengths = [p.queries for p in parts], [len(k) for k in keys]
        return FlashSegments(
            gather=torch.tensor(list(chain(*keys)), device=device),
            query_bounds=torch.tensor(list(accumulate(queries, initial=0)), dtype=torch.int32, device=device),
            key_bounds=torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device),
            most_queries=max(queries),
            most_keys=max(lengths),
        )

    def masked(self, window: int | None) -> Sequence[MaskedSegment]:
        """The segments one by one; `window` is None for layers that see all of a row."""
        if window is not None and window >= self._longest:
            window = None
        if window not in self._masked:
            self._masked[window] = [_mask(part, window, self._device) for part in self._parts]
        return self._masked[window]

    def blocks(self, window: int | None, group: int) -> Sequence[QueryBlock]:
        """The segments in blocks of queries; `group` is G, the number of query heads that share a key head."""
        if (window, group) not in self._blocks:
            self._blocks[window, group] = [
                _block(segment, start, group)
                for segment in self.masked(window)
                for start in range(0, segment.part.queries, _BLOCK)
            ]
        return self._blocks[window, group]


def _block(segment: MaskedSegment, start: int, group: int) -> QueryBlock:
    """The block that begins with the segment's query `start`."""
    part, kept, stop = segment.part, segment.kept, min(start + _BLOCK, segment.part.queries)
    if segment.mask is None:
        hidden = torch.ones(stop - start, stop, dtype=torch.bool).triu_(start + 1)
    else:
        hidden = ~segment.mask[start:stop, : kept + stop]
    bias = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    return QueryBlock(
        queries=slice(part.start + start, part.start + stop),
        prompt=slice(part.prefix_stop - kept, part.prefix_stop),
        own=slice(part.start, part.start + stop),
        bias=bias.repeat_interleave(group, dim=0),
    )


def _mask(part: Segment, window: int | None, device: torch.device) -> MaskedSegment:
    kept = part.prefix if window is None else min(part.prefix, window - 1)
    keys = kept + part.queries
    is_cut = window is not None and window < keys
    if not kept and not is_cut:
        return MaskedSegment(part, kept, None)
    mask = torch.ones(part.queries, keys, dtype=torch.bool, device=device).tril_(kept)
    return MaskedSegment(part, kept, mask.triu_(kept - window + 1) if window is not None and is_cut else mask)
