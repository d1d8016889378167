"""The segments of a pack, prepared once for all layers of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import torch
from torch import Tensor

from dynalign_trainer.train.packed.layout import Segment


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


class Segments:
    """The segments of one pack, in the form that each kernel takes.

    A window of W means that a token sees itself and the W - 1 positions before it in its own row, prompt included; the
    keys of a completion are its row's, so the distance between two of them is that of their positions.
    """

    def __init__(self, parts: Sequence[Segment], device: torch.device, dtype: torch.dtype) -> None:
        self.has_flash = device.type == "cuda" and dtype is not torch.float32
        """Whether the flash kernel computes on this device in this type."""
        self._parts = parts
        self._device = device
        self._longest = max(part.prefix + part.queries for part in parts)
        self._masked: dict[int | None, Sequence[MaskedSegment]] = {}

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


def _mask(part: Segment, window: int | None, device: torch.device) -> MaskedSegment:
    kept = part.prefix if window is None else min(part.prefix, window - 1)
    keys = kept + part.queries
    is_cut = window is not None and window < keys
    if not kept and not is_cut:
        return MaskedSegment(part, kept, None)
    mask = torch.ones(part.queries, keys, dtype=torch.bool, device=device).tril_(kept)
    return MaskedSegment(part, kept, mask.triu_(kept - window + 1) if window is not None and is_cut else mask)
