"""Scores read off a model's next-token distribution. Pure."""

import math
from collections.abc import Sequence


def expected_digit(logprobs: Sequence[float]) -> tuple[float, float]:
    """Expected digit and its mass, from the log-probabilities of the digits 0 to 9 (shape: 10).

    The expectation is sum(d * p(d)) / sum(p(d)), between 0 and 9 (NaN when the digits have no probability at all); the
    mass is sum(p(d)), the probability that the next token is a digit (LEARNING, "judge").
    """
    largest = max(logprobs)
    if not math.isfinite(largest):
        return math.nan, 0.0
    weights = [math.exp(value - largest) for value in logprobs]
    total = sum(weights)
    return sum(digit * weight for digit, weight in enumerate(weights)) / total, total * math.exp(largest)
