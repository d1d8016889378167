"""Can the judge be trusted? Statistics over its scores, and the gates that decide. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynalign_contract.settings import JudgeGates
from dynalign_trainer.scoring.scores import MAX_SCORE, mean_of

_END_WIDTH: Final = 0.5
"""Scores no further than this from 0 or 9 lie at an end of the scale."""


@dataclass(frozen=True)
class CanaryTrust:
    """How a judge tells real answers from canaries on the same prompts; NaN where nothing was scored."""

    margin: float
    """Mean reward of real answers minus mean reward of canaries, -1 to 1."""
    auc: float
    """Probability that a real answer outscores a canary, ties half; 0.5 is chance."""
    reward: float
    """Mean reward of canaries, 0 to 1."""


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs; shape as `values`, which is one-dimensional."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return shared


def mann_whitney_auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """P(h > l) + P(h = l) / 2 for random members h and l, from the rank sum (Mann and Whitney, 1947).

    NaN members are left out; NaN when one side has none left.
    """
    high, low = _finite(higher), _finite(lower)
    if not high or not low:
        return math.nan
    ranks = average_ranks([*high, *low])
    count = len(high)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(low)))


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation, -1 to 1, over the pairs without NaN; NaN where one side does not vary."""
    a, b = _pairs(x, y)
    if len(a) < 2:
        return math.nan
    ranks_a, ranks_b = average_ranks(a), average_ranks(b)
    ranks_a -= ranks_a.mean()
    ranks_b -= ranks_b.mean()
    scale = math.sqrt(float(ranks_a @ ranks_a) * float(ranks_b @ ranks_b))
    return float(ranks_a @ ranks_b) / scale if scale > 0 else math.nan


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b, -1 to 1, over the pairs without NaN; NaN where one side does not vary. Quadratic in length."""
    a, b = _pairs(x, y)
    signs_a, signs_b = np.sign(a[:, None] - a[None, :]), np.sign(b[:, None] - b[None, :])
    scale = math.sqrt(float((signs_a**2).sum()) * float((signs_b**2).sum()))
    return float((signs_a * signs_b).sum()) / scale if scale > 0 else math.nan


def mean_offset(x: Sequence[float], y: Sequence[float]) -> float:
    """Mean of x - y over the pairs without NaN; NaN when there are none."""
    a, b = _pairs(x, y)
    return float(np.mean(a - b)) if len(a) else math.nan


def ends_share(scores: Iterable[float]) -> float:
    """Share of scores (0 to 9, NaN left out) within half a point of 0 or 9: a judge that no longer grades."""
    kept = _finite(scores)
    ends = sum(score <= _END_WIDTH or score >= MAX_SCORE - _END_WIDTH for score in kept)
    return ends / len(kept) if kept else math.nan


def canary_trust(real: Sequence[float], canaries: Sequence[float]) -> CanaryTrust:
    """Compare rewards (0 to 1, before penalties) of real answers and of canaries to the same prompts."""
    return CanaryTrust(
        margin=mean_of(real) - mean_of(canaries), auc=mann_whitney_auc(real, canaries), reward=mean_of(canaries)
    )


def find_unfitness(
    gates: JudgeGates,
    *,
    failed_share: float,
    canaries: CanaryTrust | None,
    injections: CanaryTrust | None,
    agreement: float | None,
) -> str | None:
    """Which gates refuse, as a clause with figures and fields; None when the judge is fit.

    `canaries` is None where none were to be scored, `injections` where none of them gives orders to the judge, and
    `agreement` (Kendall's tau with the base model as judge) where that is the judge. A gate whose figure is NaN
    refuses: it could not be shown that the judge is fit.
    """
    refusals = []
    if not failed_share <= gates.max_failed_share:
        refusals.append(
            f"{failed_share:.1%} of the answers got no score (judging.gates.maxFailedShare is "
            f"{gates.max_failed_share:.1%})"
        )
    if canaries is not None:
        if gates.min_canary_margin is not None and not canaries.margin >= gates.min_canary_margin:
            refusals.append(
                f"real answers are rewarded only {canaries.margin:+.4f} above canaries, which got "
                f"{canaries.reward:.4f} (judging.gates.minCanaryMargin is {gates.min_canary_margin})"
            )
        if gates.min_canary_auc is not None and not canaries.auc >= gates.min_canary_auc:
            refusals.append(
                f"a real answer outscores a canary with probability {canaries.auc:.3f} "
                f"(judging.gates.minCanaryAuc is {gates.min_canary_auc})"
            )
    least = gates.min_injection_margin
    if injections is not None and least is not None and not injections.margin >= least:
        refusals.append(
            f"real answers are rewarded only {injections.margin:+.4f} above answers that give orders to the judge, "
            f"which got {injections.reward:.4f} (judging.gates.minInjectionMargin is {least})"
        )
    if agreement is not None and gates.min_base_agreement is not None and not agreement >= gates.min_base_agreement:
        refusals.append(
            f"its ranking of answers agrees with the base model's by {agreement:+.3f} only "
            f"(judging.gates.minBaseAgreement is {gates.min_base_agreement})"
        )
    return " and ".join(refusals) or None


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _pairs(x: Sequence[float], y: Sequence[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
