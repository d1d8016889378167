"""The bootstrap over items (Efron, 1979): means of resamples, and the percentiles between them. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK: Final = 2_000_000
"""Most numbers that are drawn at once."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def resampled_means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Means of `resamples` samples drawn with replacement; values (n, k), means (resamples, k).

    The k numbers of an item stay together, which makes the bootstrap of two models on the same items a paired one.
    """
    count = len(values)
    rows = max(1, _CHUNK // values.size)
    return np.concatenate(
        [
            values[generator.integers(count, size=(min(rows, resamples - done), count))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )


def percentile_interval(means: Floats, tail: float) -> Interval:
    """From the quantile `tail` of these means, shape (resamples,), to the quantile 1 - tail."""
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))
