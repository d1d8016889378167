"""How a policy does on the items of several tasks, and how much better or worse than the base model. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dynalign_contract.estimate import Estimate
from dynalign_trainer.evaluate.bootstrap import Floats, percentile_interval, resampled_means

_ROUNDING: Final = 1e-9
"""A drop that exceeds the tolerated one by less is a matter of floating point."""


@dataclass(frozen=True)
class TaskScores:
    """Scores of two models on the same items of one task; both of shape (items,), at least one item."""

    task: str
    policy: Floats
    base: Floats

    @property
    def mean(self) -> float:
        """Mean score of the policy."""
        return float(self.policy.mean())

    @property
    def delta(self) -> float:
        """Mean score of the policy minus that of the base model."""
        return float((self.policy - self.base).mean())


@dataclass(frozen=True)
class Capability:
    """Mean over the tasks, each of which weighs the same."""

    score: Estimate
    delta: Estimate
    """Score minus the base model's."""

    def dropped(self, tolerated: float) -> bool:
        """Whether the score has fallen by more than `tolerated`, with the confidence of the interval's upper end."""
        return self.delta.is_below(-tolerated - _ROUNDING)


def estimate_capability(tasks: Sequence[TaskScores], *, confidence: float, resamples: int, seed: int) -> Capability:
    """Paired bootstrap, items drawn within each task; each end of an interval holds with `confidence` (one-sided).

    The percentiles are those of the mean over tasks, so that the intervals do not tell of the choice of the tasks. From
    some 30 items a task up an end is missed about as rarely as it says; with fewer it is missed more often.
    """
    generator = np.random.default_rng(seed)
    both = [np.stack([scores.policy, scores.policy - scores.base], axis=1) for scores in tasks]
    means = np.mean([resampled_means(values, resamples, generator) for values in both], axis=0)
    found = np.mean([values.mean(axis=0) for values in both], axis=0)
    ends = [percentile_interval(means[:, k], 1 - confidence) for k in range(len(found))]
    score, delta = (
        Estimate(value=float(value), low=end.low, high=end.high) for value, end in zip(found, ends, strict=True)
    )
    return Capability(score, delta)
