"""What a stage and the processes of its engines say to each other.

Every order but `Forget` has a number, which its replies repeat: those of an order that was given up are told apart. An
engine does one thing at a time; orders that arrive meanwhile are of the sampler that is open, or give up what is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dynalign_contract.config import Policy
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.sampler import Sample


class Method(StrEnum):
    """Methods of `Engine` that take a Watch and return a list."""

    SCORE_NEXT = "score_next"
    SCORE_CONTINUATIONS = "score_continuations"


@dataclass(frozen=True)
class Call:
    """Ask the engine once; Progress follows, then an Answer."""

    number: int
    method: Method
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Open:
    """Open a sampler; Progress and DrawnPiece follow until it is closed by GiveUp, which an Answer ends."""

    number: int
    policy: Policy


@dataclass(frozen=True)
class Add:
    """Add a piece of a group to the open sampler."""

    number: int
    group: int
    """The group's number in the sampler of the stage."""
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    seeds: Sequence[int]
    is_alone: bool
    """It begins with an empty prefix cache."""


@dataclass(frozen=True)
class GiveUp:
    """Stop a call, or close a sampler: what is under way is lost."""

    number: int


@dataclass(frozen=True)
class Forget:
    """Empty the prefix cache."""


Order = Call | Open | Add | GiveUp | Forget


@dataclass(frozen=True)
class Ready:
    """The engine has started."""

    slots: int | None


@dataclass(frozen=True)
class Progress:
    """How far an order is."""

    number: int
    ended: int
    """Requests."""
    rate: float
    """Tokens per second, read and written."""


@dataclass(frozen=True)
class Answer:
    """The end of a call, or of a sampler."""

    number: int
    value: list[Any]
    cached_tokens: int
    """`Engine.cached_tokens` by now."""


@dataclass(frozen=True)
class DrawnPiece:
    """A piece of a group whose completions have all ended."""

    number: int
    group: int
    samples: list[list[Sample]]
    """Shape (prompts, n)."""


@dataclass(frozen=True)
class Failed:
    """The end of an order, or of the start (number 0), by an error."""

    number: int
    error: BaseException
    place: str
    """`file:line in function` where it was raised."""


Reply = Ready | Progress | Answer | DrawnPiece | Failed
