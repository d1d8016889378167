"""Batches of questions to a model, and their answers, as the pods of a rollout pass them on. Pure.

What is answered together decides the last bits of it on a CPU. There a batch is cut into parts of a fixed size, however
many pods there are, one included, so that no answer depends on who gave it. On a GPU, where larger batches are faster
and no two runs agree to the last bit anyway, each pod gets one part.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pydantic import ConfigDict

from dynalign_contract.base import Model
from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.choices import Choices


@dataclass(frozen=True)
class Grain:
    """The least number of turns that is worth being asked by another pod."""

    written: int
    """Turns that are answered with a text."""
    chosen: int
    """Turns that are answered with one token, which are read only."""


GRAIN: Final = Grain(written=32, chosen=128)
_EXACT: Final = 4
"""A part has so many times the grain where its size must not depend on the pods: on a CPU, parts of 32 texts take a
fifth longer than parts of 128 (the demo's prompts: 94 seconds in the place of 78)."""


class Batch(Model):
    """Turns that one policy is asked at a time: to write, with `sampling` and `seeds`, or to choose among `choices`."""

    policy: str
    """Version of the policy."""
    size: int
    """Turns of a part."""
    turns: tuple[ChatTurn, ...]
    sampling: Sampling | None = None
    seeds: tuple[int, ...] = ()
    choices: Choices | None = None

    @cached_property
    def name(self) -> str:
        """A digest: a batch of the same name has the same answers."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self.turns) // self.size)

    def select(self, parts: Sequence[int]) -> "Batch":
        """The turns of these parts alone."""
        places = [place for part in parts for place in self.places(part)]
        return Batch(
            policy=self.policy,
            size=self.size,
            turns=tuple(self.turns[place] for place in places),
            sampling=self.sampling,
            seeds=tuple(self.seeds[place] for place in places) if self.seeds else (),
            choices=self.choices,
        )

    def places(self, part: int) -> range:
        """Indexes of a part's turns."""
        return range(part * self.size, min((part + 1) * self.size, len(self.turns)))


class Answers(Model):
    """Answers to all turns of a batch, or of a part of it, in order: either texts or log-probabilities."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    written: tuple[Completion | None, ...] = ()
    chosen: tuple[tuple[float, ...], ...] = ()
    """Shape (turns, choices)."""
    usage: Usage
    """What giving them took."""

    @property
    def count(self) -> int:
        """Number of answers."""
        return len(self.written) + len(self.chosen)

    def cut(self, sizes: Sequence[int]) -> "list[Answers]":
        """Consecutive answers, so many each; the usage is the first one's."""
        pieces, start = [], 0
        for size in sizes:
            written, chosen = self.written[start : start + size], self.chosen[start : start + size]
            pieces.append(Answers(written=written, chosen=chosen, usage=Usage() if start else self.usage))
            start += size
        return pieces


def part_size(turns: int, least: int, *, pods: int, is_exact: bool) -> int:
    """Turns of a part. `least` is the grain.

    `is_exact`: an answer depends, in its last bits, on what is asked together with it, and must not on `pods`.
    """
    return _EXACT * least if is_exact else max(least, -(-turns // pods))
