"""One reward out of the judge's and the verifiers' (docs/method.md, "Rewards beside the judge"). Pure."""

import math
from collections.abc import Mapping


def combine_rewards(
    judge: float, judge_weight: float, values: Mapping[str, float], weights: Mapping[str, float]
) -> float:
    """The weighted mean of the judge's reward and the verifiers' values; the judge's own where there are no verifiers.

    A part of weight 0 is measured only. NaN as soon as a part that counts is NaN: an answer is never rewarded for what
    was not found out. Raises ValueError when no part has a weight.
    """
    if not values:
        return judge
    parts = [(judge_weight, judge), *((weights[name], value) for name, value in values.items())]
    whole = math.fsum(weight for weight, _ in parts)
    if whole <= 0:
        raise ValueError("a reward needs a part with a weight above 0")
    return math.fsum(weight * value for weight, value in parts if weight > 0) / whole


def judge_share(judge_weight: float, weights: Mapping[str, float]) -> float:
    """The judge's share of all weights: what an error of its reward makes of the whole; 1 without verifiers."""
    return judge_weight / math.fsum((judge_weight, *weights.values())) if weights else 1.0
