"""Rewards from a judge's next-token distribution. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from dynalign_contract.objective import Aggregate

MAX_SCORE: Final = 9.0


def aggregate(scores: Sequence[float], how: Aggregate) -> float:
    """One reward from 0 to 1 out of the aspects' scores (each 0 to 9); NaN as soon as one of them is NaN."""
    parts = [score / MAX_SCORE for score in scores]
    if not parts:
        raise ValueError("an answer without scores has no reward")
    if any(math.isnan(part) for part in parts):
        return math.nan
    match how:
        case Aggregate.GEOMETRIC_MEAN:
            return 0.0 if min(parts) <= 0 else math.exp(math.fsum(map(math.log, parts)) / len(parts))
        case Aggregate.MEAN:
            return math.fsum(parts) / len(parts)
        case Aggregate.MINIMUM:
            return min(parts)


def standard_error(votes: Sequence[Sequence[float]], how: Aggregate) -> float:
    """Standard error of a reward whose aspects' scores are means over votes, 0 to 1.

    `votes` are scores of shape (aspects, votes), NaN for a vote that was not valid, empty for an aspect that was not
    voted on. Each vote is aggregated over the aspects as if it were alone; the error is the sample standard deviation
    (n - 1) of these n rewards, divided by sqrt(n). That is exact for the mean, and for geometric mean and minimum as
    good as they are linear over the votes' spread. A vote counts only where every aspect has it; NaN for n < 2.
    """
    rewards = [aggregate(vote, how) for vote in zip(*votes, strict=False)]
    whole = [reward for reward in rewards if not math.isnan(reward)]
    return statistics.stdev(whole) / math.sqrt(len(whole)) if len(whole) > 1 else math.nan


def mean_of(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there are none."""
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan
