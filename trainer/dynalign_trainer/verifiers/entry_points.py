"""Rewards that a package in the image of the stages brings, found as entry points."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from numbers import Real
from typing import Any

from dynalign_contract.errors import BadConfigError
from dynalign_contract.reward_protocol import ENTRY_POINTS, RewardRequest
from dynalign_trainer.verifiers.batches import BatchFailure, Values

RewardFunction = Callable[[dict[str, Any]], Iterable[float | None]]
"""A RewardRequest as a dict -> the value of each of its items, None where it cannot be decided."""


@dataclass(frozen=True)
class InstalledReward:
    """A reward function with the distribution that brings it."""

    name: str
    function: RewardFunction
    distribution: str
    version: str

    def score(self, requests: Sequence[RewardRequest], look: Callable[[], None]) -> list[Values | BatchFailure]:
        """The values of every batch, in order, or why there are none. `look` is called before each and may raise."""
        return [self._call(request, look) for request in requests]

    def _call(self, request: RewardRequest, look: Callable[[], None]) -> Values | BatchFailure:
        look()
        copy = json.loads(request.encode())
        try:
            values = tuple(map(_number, self.function(copy)))
        except Exception as error:  # noqa: BLE001 - whatever the function raises is its failure, not the stage's
            return BatchFailure(f"{self.name} of {self.distribution} raised {type(error).__name__}: {error}")
        if len(values) != len(request.items):
            return BatchFailure(
                f"{self.name} of {self.distribution} returned {len(values)} values for {len(request.items)} items."
            )
        return values


def find_installed_reward(name: str, field: str) -> InstalledReward:
    """The reward behind an entry point; `field` is its place in the run file.

    Raises BadConfigError where no package in this environment registers it, two do, or it cannot be loaded.
    """
    registered = metadata.entry_points(group=ENTRY_POINTS)
    found = [entry for entry in registered if entry.name == name]
    if not found:
        others = ", ".join(sorted({entry.name for entry in registered})) or "none"
        raise BadConfigError(
            f"{field}: no package in this image registers {name} under {ENTRY_POINTS}; registered are: {others}. "
            "Install the package that does into the image of the stages, or write one of those."
        )
    if len(found) > 1:
        brought = ", ".join(sorted(_distribution(entry)[0] for entry in found))
        raise BadConfigError(
            f"{field}: several packages register {name} under {ENTRY_POINTS} ({brought}). Remove all but one from the "
            "image."
        )
    (entry,) = found
    distribution, version = _distribution(entry)
    return InstalledReward(name, _load(entry, field, f"{distribution} {version}"), distribution, version)


def _load(entry: metadata.EntryPoint, field: str, distribution: str) -> RewardFunction:
    try:
        function: Any = entry.load()
    except Exception as error:
        raise BadConfigError(
            f"{field}: {entry.value} of {distribution} cannot be loaded ({type(error).__name__}: {error}). Correct the "
            "package in the image of the stages."
        ) from error
    if not callable(function):
        raise BadConfigError(
            f"{field}: {entry.value} of {distribution} is {type(function).__name__}, and not a function. Correct the "
            "entry point of the package."
        )
    found: RewardFunction = function
    return found


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist is not None else (entry.module, "unknown")


def _number(value: Any) -> float | None:
    """A value of the list. Raises TypeError for what is neither a number nor None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"a value is {type(value).__name__}, and not a number or None")
    return float(value)
