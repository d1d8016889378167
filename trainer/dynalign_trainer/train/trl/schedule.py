"""Which row is in which micro-batch of which rank. A function of the batch only, never of a trainer's counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.records import BatchRow

_SMALLEST_STEP: Final = 2
"""TRL refuses a configuration in which one step holds a single sequence."""


@dataclass(frozen=True)
class Schedule:
    """Rectangular plan: every step has the same number of micro-batches, of the same size, on every rank.

    Slots that no row fills are None: blanks that carry no loss, so no row is ever left out to make shapes fit.
    """

    slots: tuple[tuple[int | None, ...], ...]
    """Shape (steps, micro_batches * ranks * micro_batch): row numbers, or None."""
    ranks: int
    micro_batches: int
    """Forward and backward passes of one rank in one optimiser step (gradient accumulation)."""
    micro_batch: int
    """Sequences in one of them."""

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return len(self.slots)

    def rows(self, step: int, micro: int, rank: int) -> tuple[int | None, ...]:
        """Row numbers of one micro-batch, shape (micro_batch,)."""
        start = (micro * self.ranks + rank) * self.micro_batch
        return self.slots[step][start : start + self.micro_batch]

    def of_rank(self, rank: int, step: int) -> frozenset[int]:
        """Every row of a step that this rank consumes."""
        rows = (row for micro in range(self.micro_batches) for row in self.rows(step, micro, rank))
        return frozenset(row for row in rows if row is not None)


def plan_schedule(rows: Sequence[BatchRow], *, ranks: int, micro_batch: int) -> Schedule:
    """Spread the unmasked rows of every step over the ranks, longest first, in micro-batches of like length.

    `micro_batch` is an upper bound: it shrinks where that leaves fewer blanks. Masked rows need no pass and get none.
    """
    steps: list[list[int]] = [[] for _ in range(1 + max((row["step"] for row in rows), default=-1))]
    for number, row in enumerate(rows):
        if not row["masked"]:
            steps[row["step"]].append(number)
    most = max(_SMALLEST_STEP, *(len(numbers) for numbers in steps)) if steps else _SMALLEST_STEP
    micro_batches = -(-most // (ranks * micro_batch))
    size = -(-most // (ranks * micro_batches))
    width = ranks * micro_batches * size
    slots = []
    for numbers in steps:
        numbers.sort(key=lambda n: (-len(rows[n]["prompt_ids"]) - len(rows[n]["completion_ids"]), n))
        slots.append((*numbers, *[None] * (width - len(numbers))))
    return Schedule(slots=tuple(slots), ranks=ranks, micro_batches=micro_batches, micro_batch=size)
