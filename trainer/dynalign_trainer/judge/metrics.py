"""What a judged shard looks like in numbers. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dynalign_contract.config import JudgeParams
from dynalign_contract.metrics import JudgeMetrics, MetricValues
from dynalign_contract.objective import Objective
from dynalign_contract.records import JudgementRow
from dynalign_trainer.judge.trust import ends_share, spearman
from dynalign_trainer.scoring.scores import MAX_SCORE, mean_of

_NO_SPREAD: Final = 1e-6
"""A group whose rewards have a smaller standard deviation teaches nothing."""


@dataclass(frozen=True)
class Shape:
    """Metrics of a judged shard; NaN where a number is one of nothing."""

    rewards: MetricValues[JudgeParams]
    biases: MetricValues[JudgeParams]
    """What the scores depend on beside quality."""


def judgement_metrics(rows: Sequence[JudgementRow], lengths: Sequence[int], objective: Objective) -> Shape:
    """Means, spreads and shares over JUDGEMENT rows (groups adjacent) and the candidates' lengths in tokens.

    `reward` is after verifiers and penalties, an aspect's reward is its score divided by 9; NaN rewards are left out.
    The length correlation is Spearman's with the judge's reward, within groups, averaged over those where it is
    defined.
    """
    groups = _by_prompt(rows, lengths)
    rewards = [row["reward"] for row in rows]
    deviations = [_deviation([row["reward"] for row, _ in group]) for group in groups]
    correlations = [
        spearman([length for _, length in group], [row["raw_reward"] for row, _ in group]) for group in groups
    ]
    return Shape(
        rewards={
            JudgeMetrics.reward: mean_of(rewards),
            **_aspect_means(rows, objective),
            **_verifier_metrics(rows),
            JudgeMetrics.judged: float(len(rows)),
            JudgeMetrics.scored: float(sum(not math.isnan(reward) for reward in rewards)),
            JudgeMetrics.reward_std: _deviation(rewards),
            JudgeMetrics.group_std: mean_of(deviations),
            JudgeMetrics.zero_variance_share: _share([not deviation > _NO_SPREAD for deviation in deviations]),
            JudgeMetrics.failed_share: _share([math.isnan(reward) for reward in rewards]),
            JudgeMetrics.retried: sum(row["retries"] for row in rows),
            JudgeMetrics.mass: mean_of(entry["mass"] for row in rows for entry in row["scores"]),
        },
        biases={
            JudgeMetrics.length_correlation: mean_of(correlations),
            JudgeMetrics.ends_share: ends_share(entry["score"] for row in rows for entry in row["scores"]),
        },
    )


def unscored_share(rows: Sequence[JudgementRow]) -> float:
    """Share of JUDGEMENT rows without a reward of the judge's; NaN when there are no rows."""
    return _share([math.isnan(row["raw_reward"]) for row in rows])


def undecided_shares(rows: Sequence[JudgementRow]) -> dict[str, float]:
    """Verifier -> share of JUDGEMENT rows that it could not decide."""
    return {name: _share([math.isnan(value) for value in values]) for name, values in _verified(rows).items()}


def _verified(rows: Sequence[JudgementRow]) -> dict[str, list[float]]:
    """Verifier -> its values of all rows."""
    names = rows[0].get("verifiers", {}) if rows else {}
    return {name: [row["verifiers"][name] for row in rows] for name in names}


def _verifier_metrics(rows: Sequence[JudgementRow]) -> MetricValues[JudgeParams]:
    shares = undecided_shares(rows)
    return {
        **{JudgeMetrics.verifier_reward.of(name): mean_of(values) for name, values in _verified(rows).items()},
        **{JudgeMetrics.verifier_failed_share.of(name): share for name, share in shares.items()},
    }


def _aspect_means(rows: Sequence[JudgementRow], objective: Objective) -> MetricValues[JudgeParams]:
    return {
        JudgeMetrics.aspect_reward.of(aspect.id): mean_of(row["scores"][index]["score"] / MAX_SCORE for row in rows)
        for index, aspect in enumerate(objective.aspects)
    }


def _by_prompt(rows: Sequence[JudgementRow], lengths: Sequence[int]) -> list[list[tuple[JudgementRow, int]]]:
    pairs = list(zip(rows, lengths, strict=True))
    return [list(group) for _, group in groupby(pairs, key=lambda pair: pair[0]["prompt_id"])]


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) of the values that are not NaN; NaN for fewer than two."""
    kept = [value for value in values if not math.isnan(value)]
    return statistics.stdev(kept) if len(kept) > 1 else math.nan


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
