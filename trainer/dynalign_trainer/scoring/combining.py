"""One reward out of several judges' (docs/method.md, "Several judges"). Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dynalign_contract.settings import Combine


@dataclass(frozen=True)
class CombinationRule:
    """How the rewards of the judges that count become one."""

    how: Combine
    weights: Mapping[str, float]
    """Judge -> weight above 0."""
    quorum: int
    """How many of these judges must have scored an answer."""

    def shares(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Judge -> its share in the combined reward, above 0 and 1 in all; empty for fewer rewards than the quorum.

        NaN is no reward. The combined reward is the sum of the rewards times these shares: of the mean they are the
        weights of the judges that scored the answer, of the minimum the one judge with the lowest reward, of the median
        the one in the middle of all weight, or half each of two. Of equal rewards that of the first judge is taken.
        """
        found = {name: rewards[name] for name in self.weights if not math.isnan(rewards.get(name, math.nan))}
        if len(found) < max(self.quorum, 1):
            return {}
        match self.how:
            case Combine.MEAN:
                whole = math.fsum(self.weights[name] for name in found)
                return {name: self.weights[name] / whole for name in found}
            case Combine.MEDIAN:
                return self._median(found)
            case Combine.MINIMUM:
                return {min(found, key=lambda name: found[name]): 1.0}

    def reward(self, rewards: Mapping[str, float]) -> float:
        """The combined reward; NaN for fewer rewards than the quorum."""
        return weighted(self.shares(rewards), rewards)

    def _median(self, rewards: Mapping[str, float]) -> dict[str, float]:
        ordered = sorted(rewards, key=lambda name: rewards[name])
        half, below = math.fsum(self.weights[name] for name in ordered) / 2, 0.0
        for name, above in pairwise(ordered):
            below += self.weights[name]
            if math.isclose(below, half):
                return {name: 0.5, above: 0.5}
            if below > half:
                return {name: 1.0}
        return {ordered[-1]: 1.0}


def weighted(shares: Mapping[str, float], values: Mapping[str, float]) -> float:
    """The sum of values times shares; NaN without shares, or if a value that has a share is NaN."""
    return math.fsum(share * values[name] for name, share in shares.items()) if shares else math.nan


def combined_error(shares: Mapping[str, float], errors: Mapping[str, float]) -> float:
    """Standard error of a combined reward whose judges' errors are independent; NaN as soon as one is unknown."""
    return math.sqrt(math.fsum((share * errors[name]) ** 2 for name, share in shares.items())) if shares else math.nan


def disagreements(group: Sequence[Mapping[str, float]]) -> list[float]:
    """For each answer of a group, the standard deviation (n - 1) of the judges' rewards (judge -> reward of an answer).

    Each judge's mean over the answers that all judges scored is subtracted before: a judge that is stricter throughout
    ranks no answer differently, and advantages do not feel it. NaN for an answer that fewer than two judges scored, and
    for all answers of a group of which fewer than two were scored by all.
    """
    judges = {name for answer in group for name, reward in answer.items() if not math.isnan(reward)}
    common = [answer for answer in group if all(not math.isnan(answer[name]) for name in judges)]
    if len(common) < 2:
        return [math.nan] * len(group)
    means = {name: statistics.fmean(answer[name] for answer in common) for name in judges}
    return [
        _deviation([answer[name] - means[name] for name in judges if not math.isnan(answer[name])]) for answer in group
    ]


def disagreement_error(disagreement: float, rewards: Mapping[str, float]) -> float:
    """Standard error of the mean of the judges' rewards by their disagreement, 0 to 1; NaN where that is unknown."""
    count = sum(not math.isnan(reward) for reward in rewards.values())
    return disagreement / math.sqrt(count) if count else math.nan


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
