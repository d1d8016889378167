"""Ratings of the policy and of those of earlier iterations, from all comparisons so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dynalign_contract.config import EvaluateParams
from dynalign_contract.inputs import EVALUATIONS
from dynalign_contract.layout import COMPARISONS_FILE, RATINGS_FILE
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import COMPARISON, RATING, ComparisonRow, RatingRow, read_rows, write_rows
from dynalign_contract.settings import Ratings
from dynalign_trainer.evaluate.bootstrap import estimate
from dynalign_trainer.evaluate.comparison_sets import read_matches
from dynalign_trainer.evaluate.ratings import Rating, rate
from dynalign_trainer.runtime.context import StageContext

_RESAMPLES: Final = 200
"""Each is a fit of its own, some milliseconds long."""


@dataclass(frozen=True)
class RatingsResult:
    """What the stage adds to its output; nothing where no ratings are wanted or nothing was decided."""

    files: dict[str, int] = field(default_factory=dict)
    """File -> rows."""
    metrics: MetricValues[EvaluateParams] = field(default_factory=dict)


def rate_policies(context: StageContext[EvaluateParams], comparisons: Sequence[ComparisonRow]) -> RatingsResult:
    """Rate every policy by the headline judge's comparisons, those of earlier evaluations included."""
    settings = context.params.evaluation
    folders = context.earlier(EVALUATIONS)
    earlier = [row for folder in folders for row in read_rows(folder / COMPARISONS_FILE, COMPARISON)]
    matches = read_matches([*earlier, *comparisons], settings.win_rate)
    if settings.ratings is Ratings.NONE or not matches:
        return RatingsResult()
    rated = rate(matches, confidence=settings.win_rate.confidence, resamples=_RESAMPLES, seed=context.seed("ratings"))
    rows = [
        RatingRow(
            policy=rating.policy,
            points=rating.points,
            low=rating.interval.low,
            high=rating.interval.high,
            comparisons=rating.matches,
        )
        for rating in rated
    ]
    write_rows(context.folder / RATINGS_FILE, rows, RATING)
    own = next((rating for rating in rated if rating.policy == context.params.policy.version), None)
    if own is None:
        return RatingsResult(files={RATINGS_FILE: len(rows)})
    return RatingsResult({RATINGS_FILE: len(rows)}, rating_metrics(own))


def rating_metrics(own: Rating) -> MetricValues[EvaluateParams]:
    """The stage's metrics about the policy's own rating."""
    return EvaluateMetrics.rating.split(estimate(own.points, own.interval))
