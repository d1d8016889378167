"""A pack's tokens in one row: which position attends to which, and which one predicts which token.

    prompt A | completion A0 | completion A1 | prompt B | completion B0 ...

A completion attends to its prompt and to its own earlier tokens; its positions go on from the prompt's end, so nothing
but the order of sums differs from computing every sequence alone. The last token of a completion predicts nothing and
is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypedDict


@dataclass(frozen=True)
class Segment:
    """A stretch of positions, and the prompt that they attend to beside themselves."""

    start: int
    stop: int
    prefix_start: int = 0
    prefix_stop: int = 0
    """Empty for a prompt."""

    @property
    def queries(self) -> int:
        """Positions that attend."""
        return self.stop - self.start

    @property
    def prefix(self) -> int:
        """Positions of the prompt."""
        return self.prefix_stop - self.prefix_start


@dataclass(frozen=True)
class Layout:
    """N positions of one pack, of which M, not all different, predict a completion token each."""

    ids: tuple[int, ...]
    """Shape (N,)."""
    positions: tuple[int, ...]
    """Within the own sequence, shape (N,)."""
    segments: tuple[Segment, ...]
    """In order; they cover 0 to N."""
    predictors: tuple[int, ...]
    """Shape (M,): where each completion token is predicted."""
    targets: tuple[int, ...]
    """The completion tokens, shape (M,), row after row."""


class TokenRow(TypedDict):
    """The columns of a batch's row that decide its place in a pack."""

    prompt_id: str
    prompt_ids: list[int]
    completion_ids: list[int]


_BLANK: Final[TokenRow] = {"prompt_id": "", "prompt_ids": [0], "completion_ids": [0]}
"""Stands in for an empty pack, which must be computed all the same: collective operations wait for every rank."""


def lay_out(rows: Sequence[TokenRow]) -> Layout:
    """Lay out the rows of a pack, one group after the other; no rows give one token that counts nothing."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    predictors: list[int] = []
    targets: list[int] = []
    prompt, group = Segment(0, 0), None
    for row in rows or [_BLANK]:
        if row["prompt_id"] != group:
            group = row["prompt_id"]
            prompt = Segment(len(ids), len(ids) + len(row["prompt_ids"]))
            segments.append(prompt)
            ids += row["prompt_ids"]
            positions += range(prompt.queries)
        completion = row["completion_ids"]
        start, inputs = len(ids), completion[:-1]
        if inputs:
            segments.append(Segment(start, start + len(inputs), prompt.start, prompt.stop))
        ids += inputs
        positions += range(prompt.queries, prompt.queries + len(inputs))
        predictors += [prompt.stop - 1, *range(start, start + len(inputs))]
        targets += completion
    return Layout(tuple(ids), tuple(positions), tuple(segments), tuple(predictors), tuple(targets))
