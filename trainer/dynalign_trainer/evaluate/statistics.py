"""Win rates and what they are worth: intervals over prompts, length control, biases of the judge. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dynalign_trainer.evaluate.bootstrap import Floats, Interval, percentile_interval, resample, resampled_means

_RIDGE: Final = 1e-3
"""Penalty of the length-controlled fit: keeps its coefficients finite when the outcomes can be separated."""
_ROUNDING: Final = 1e-13
"""Growth of the fit's objective that may be floating-point noise."""


@dataclass(frozen=True)
class Comparison:
    """One prompt's comparison of a candidate with an opponent by one judge."""

    first: float
    """The judge's preference for the candidate, 0 to 1, when the candidate is shown first; NaN without an answer."""
    second: float
    """The judge's preference for the candidate, 0 to 1, when the candidate is shown second; NaN without an answer."""
    outcome: float
    """1 win, 0.5 tie or inconsistent, 0 loss; NaN when the judge gave no answer."""
    length_difference: int
    """Tokens of the candidate minus tokens of the opponent."""
    both_orders: bool
    """The judge was asked in both orders; not so for identical answers and answers scored alone."""

    @property
    def preference(self) -> float:
        """Preference for the candidate without the judge's preference for a position."""
        return (self.first + self.second) / 2


def decide(first: float, second: float, margin: float) -> float:
    """Outcome of a comparison in both orders: 1 or 0 when both agree by more than `margin` around 0.5, else 0.5.

    NaN when one of the two is NaN.
    """
    if math.isnan(first) or math.isnan(second):
        return math.nan
    if min(first, second) > 0.5 + margin:
        return 1.0
    return 0.0 if max(first, second) < 0.5 - margin else 0.5


def win_rate(comparisons: Sequence[Comparison]) -> float:
    """Mean outcome, 0 to 1, ties half; NaN when nothing was decided."""
    outcomes = _outcomes(comparisons)
    return float(outcomes.mean()) if len(outcomes) else math.nan


def bootstrap_interval(comparisons: Sequence[Comparison], *, confidence: float, resamples: int, seed: int) -> Interval:
    """Percentile bootstrap of the win rate over prompts (Efron, 1979); NaN when nothing was decided.

    It is too narrow for few prompts, and of width 0 when all outcomes are equal: read it from some 30 prompts up.
    """
    outcomes = _outcomes(comparisons)
    if not len(outcomes):
        return Interval(math.nan, math.nan)
    means = resampled_means(outcomes[:, None], resamples, np.random.default_rng(seed))
    return percentile_interval(means[:, 0], (1 - confidence) / 2)


def length_controlled_win_rate(comparisons: Sequence[Comparison]) -> float:
    """Win rate that would be expected if both answers were of equal length, 0 to 1; NaN when nothing was decided.

    After the idea of length-controlled AlpacaEval (arXiv 2404.04475), without its terms for single prompts: a logistic
    regression P(win) = sigmoid(a + b * tanh(d / std(d))) of the outcomes y (ties 0.5) on the length differences d, with
    a small ridge penalty on a and b, read at d = 0, that is sigmoid(a). The difference is scaled but not centred, so
    that exchanging candidate and opponent gives exactly the complement.
    """
    values = _outcomes_and_lengths(comparisons)
    return float(_at_equal_length(values[None])[0]) if len(values) else math.nan


def length_controlled_interval(
    comparisons: Sequence[Comparison], *, confidence: float, resamples: int, seed: int
) -> Interval:
    """Percentile bootstrap of the length-controlled win rate over prompts; NaN when nothing was decided.

    The regression is fitted anew to every resample; the scale of the lengths is the whole sample's.
    """
    values = _outcomes_and_lengths(comparisons)
    if not len(values):
        return Interval(math.nan, math.nan)
    found = resample(values, _at_equal_length, resamples, np.random.default_rng(seed))
    return percentile_interval(found, (1 - confidence) / 2)


def _outcomes_and_lengths(comparisons: Sequence[Comparison]) -> Floats:
    """Outcome and scaled, squashed length difference of each decided comparison; shape (decided, 2)."""
    decided = [comparison for comparison in comparisons if not math.isnan(comparison.outcome)]
    differences = np.array([comparison.length_difference for comparison in decided], dtype=np.float64)
    scale = math.sqrt(float(np.mean(differences**2))) if decided else 0.0
    feature = np.tanh(differences / scale) if scale > 0 else differences
    return np.stack([np.array([comparison.outcome for comparison in decided], dtype=np.float64), feature], axis=1)


def _at_equal_length(values: Floats) -> Floats:
    """sigmoid(a) of samples of shape (samples, n, 2), as `_outcomes_and_lengths` gives them; shape (samples,)."""
    outcomes, feature = values[..., 0], values[..., 1]
    design = np.stack([np.ones_like(feature), feature], axis=-1)
    return _sigmoid(fit_logistic(design, outcomes)[..., 0])


def fit_logistic(design: Floats, outcomes: Floats, *, ridge: float = _RIDGE) -> Floats:
    """Coefficients, shape (..., k), of logistic regressions; design (..., n, k), outcomes (..., n) between 0 and 1.

    Newton's method with step halving on the mean cross-entropy plus ridge / 2 * |coefficients|^2, which is strictly
    convex, so that there is exactly one answer and it is finite. Leading dimensions are fits of their own.
    """
    *_, count, width = design.shape
    beta = np.zeros((*design.shape[:-2], width))
    for _ in range(100):
        fitted = _sigmoid(np.einsum("...nk,...k->...n", design, beta))
        gradient = np.einsum("...nk,...n->...k", design, fitted - outcomes) / count + ridge * beta
        if float(np.abs(gradient).max()) < 1e-10:
            break
        spread = (fitted * (1 - fitted))[..., None] * design
        curvature = np.einsum("...ni,...nj->...ij", spread, design) / count + ridge * np.eye(width)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        size = np.ones((*design.shape[:-2], 1))
        allowed = _objective(design, outcomes, beta, ridge) + _ROUNDING
        while (worse := _objective(design, outcomes, beta - size * step, ridge) > allowed).any():
            size = np.where(worse[..., None], size / 2, size)
        beta = beta - size * step
    return beta


def order_flips(comparisons: Sequence[Comparison]) -> float:
    """Share of comparisons in which the two orders favour different answers; NaN when none was asked in both."""
    asked = _asked(comparisons)
    flips = [_is_flipped(comparison) for comparison in asked]
    return sum(flips) / len(flips) if flips else math.nan


def consistent(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons whose two orders do not favour different answers; all of those that were not asked in both."""
    return [comparison for comparison in comparisons if not _is_flipped(comparison)]


def first_position(comparisons: Sequence[Comparison]) -> float:
    """Share of the judge's answers that favour what is shown first, exact halves half; 0.5 for an unbiased judge."""
    favours = [
        _above_half(value) for comparison in _asked(comparisons) for value in (comparison.first, 1 - comparison.second)
    ]
    return sum(favours) / len(favours) if favours else math.nan


def mean_preference(comparisons: Sequence[Comparison]) -> float:
    """Mean preference for the candidate, 0 to 1, free of position bias; finer than the win rate for weak judges."""
    found = [comparison.preference for comparison in comparisons if not math.isnan(comparison.preference)]
    return math.fsum(found) / len(found) if found else math.nan


def tie_share(comparisons: Sequence[Comparison]) -> float:
    """Share of decided comparisons that ended in a tie; NaN when nothing was decided."""
    outcomes = _outcomes(comparisons)
    return float((outcomes == 0.5).mean()) if len(outcomes) else math.nan


def _outcomes(comparisons: Sequence[Comparison]) -> Floats:
    return np.array(
        [comparison.outcome for comparison in comparisons if not math.isnan(comparison.outcome)], dtype=np.float64
    )


def _asked(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in comparisons if comparison.both_orders and not math.isnan(comparison.outcome)]


def _is_flipped(comparison: Comparison) -> bool:
    return comparison.both_orders and (comparison.first - 0.5) * (comparison.second - 0.5) < 0


def _above_half(value: float) -> float:
    return 0.5 if value == 0.5 else float(value > 0.5)


def _sigmoid(values: Floats) -> Floats:
    result: Floats = 0.5 * (1 + np.tanh(values / 2))
    return result


def _objective(design: Floats, outcomes: Floats, beta: Floats, ridge: float) -> Floats:
    """Value of the objective for each fit, shape (...)."""
    margins = np.einsum("...nk,...k->...n", design, beta)
    result: Floats = np.mean(np.logaddexp(0, margins) - outcomes * margins, axis=-1) + ridge / 2 * np.sum(
        beta**2, axis=-1
    )
    return result
