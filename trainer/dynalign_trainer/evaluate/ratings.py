"""Ratings of more than two policies, from who has beaten whom. Pure; evalica is imported where ratings are wanted."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dynalign_contract.config import BASE_POLICY
from dynalign_trainer.evaluate.bootstrap import Interval, percentile_interval

_SCALE: Final = 400.0
"""Points for odds of 10 to 1, as in chess."""
_PRIOR: Final = 1.0
"""Prior: virtual draws added to every pair, so that ratings stay finite."""


@dataclass(frozen=True)
class Match:
    """One comparison of two policies on a prompt."""

    policy: str
    against: str
    prompt: str
    outcome: float
    """1 when `policy` won, 0.5 for a tie, 0 when it lost."""


@dataclass(frozen=True)
class Rating:
    """How strong a policy is."""

    policy: str
    points: float
    """400 * log10 of the odds of beating the base model, which has 0."""
    interval: Interval
    matches: int
    """Comparisons that it took part in."""


def rate(matches: Sequence[Match], *, confidence: float, resamples: int, seed: int) -> list[Rating]:
    """Bradley-Terry ratings (Biometrika 39, 1952), ties half, of all policies in order of their versions' first match.

    The intervals are percentiles of a bootstrap over prompts: all matches on a prompt are drawn together.
    """
    policies = list(
        dict.fromkeys([BASE_POLICY, *(name for match in matches for name in (match.policy, match.against))])
    )
    prompts = sorted({match.prompt for match in matches})
    generator = np.random.default_rng(seed)
    points = _fit(matches, policies, dict.fromkeys(prompts, 1.0))
    drawn = np.array(
        [
            _fit(matches, policies, Counter(generator.choice(prompts, size=len(prompts)).tolist()))
            for _ in range(resamples)
        ]
    )
    taken = Counter(name for match in matches for name in (match.policy, match.against))
    tail = (1 - confidence) / 2
    return [
        Rating(policy, points[k], percentile_interval(drawn[:, k], tail), taken[policy])
        for k, policy in enumerate(policies)
    ]


def _fit(matches: Sequence[Match], policies: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Points of each policy, when the matches on a prompt count as often as `weights` says."""
    from evalica import Winner, bradley_terry

    winners = {1.0: Winner.X, 0.5: Winner.Draw, 0.0: Winner.Y}
    pairs = sorted({(match.policy, match.against) for match in matches})
    rows = [
        *((m.policy, m.against, winners[m.outcome], float(weights.get(m.prompt, 0.0))) for m in matches),
        *((policy, against, Winner.Draw, _PRIOR) for policy, against in pairs),
    ]
    left, right, won, counts = (list(column) for column in zip(*rows, strict=True))
    scores = bradley_terry(left, right, won, weights=counts, tolerance=1e-8, limit=10_000).scores
    return [_SCALE * math.log10(scores[policy] / scores[BASE_POLICY]) for policy in policies]
