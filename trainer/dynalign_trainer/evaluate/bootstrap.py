"""The bootstrap over items (Efron, 1979): statistics of resamples, and the percentiles between them. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dynalign_contract.estimate import Estimate

Floats = NDArray[np.float64]

_CHUNK: Final = 2_000_000
"""Maximum count of numbers that are drawn at once."""
_MIN_ITEMS: Final = 2
"""Values from which an interval can be told."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def estimate(value: float, interval: Interval) -> Estimate | None:
    """A value with its interval; None if it is one of nothing, which is NaN."""
    return None if math.isnan(value) else Estimate(value=value, low=interval.low, high=interval.high)


def resample(
    values: Floats, statistic: Callable[[Floats], Floats], resamples: int, generator: np.random.Generator
) -> Floats:
    """A statistic of `resamples` samples drawn with replacement; values (n, k), result (resamples, ...).

    `statistic` turns samples of shape (samples, n, k) into (samples, ...). The k numbers of an item stay together: the
    bootstrap of two models on the same items is a paired one.
    """
    count = len(values)
    rows = max(1, _CHUNK // values.size)
    return np.concatenate(
        [
            statistic(values[generator.integers(count, size=(min(rows, resamples - done), count))])
            for done in range(0, resamples, rows)
        ]
    )


def resampled_means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Means of such samples; values (n, k), means (resamples, k)."""
    return resample(values, lambda drawn: drawn.mean(axis=1), resamples, generator)


def percentile_interval(found: Floats, tail: float) -> Interval:
    """Percentile interval of a statistic's values, shape (resamples,): quantiles `tail` and 1 - `tail`."""
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_estimate(values: Sequence[float], *, confidence: float, resamples: int, seed: int) -> Estimate | None:
    """Mean of the values that are not NaN, with its percentile interval; None where there are none.

    One value alone has no interval.
    """
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not len(known):
        return None
    if len(known) < _MIN_ITEMS:
        return Estimate(value=float(known.mean()))
    means = resampled_means(known[:, None], resamples, np.random.default_rng(seed))
    return estimate(float(known.mean()), percentile_interval(means[:, 0], (1 - confidence) / 2))
