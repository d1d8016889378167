"""Comparison sets: all comparisons of the policy with one opponent by one judge, and their records."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import Policy
from dynalign_contract.records import ComparisonRow, PromptRow
from dynalign_contract.settings import EvaluationJudge, WinRateMethod, WinRateSettings
from dynalign_trainer.evaluate.ratings import Match
from dynalign_trainer.evaluate.statistics import Comparison

BASE: Final = "base"
PREVIOUS: Final = "previous"


@dataclass(frozen=True)
class ComparisonSet:
    """One judge's comparisons of the policy with one opponent, one for each held-out prompt."""

    opponent: str
    """`base` or `previous`."""
    opponent_policy: Policy
    judge: EvaluationJudge
    judge_version: str
    comparisons: list[Comparison]


def build_comparisons(
    comparison_sets: Iterable[ComparisonSet], prompts: Sequence[PromptRow], *, policy: Policy, method: WinRateMethod
) -> list[ComparisonRow]:
    """COMPARISON rows, comparison_set by comparison_set, in the order of the prompts."""
    return [
        {
            "prompt_id": prompt["prompt_id"],
            "policy": policy.version,
            "opponent": comparison_set.opponent,
            "opponent_policy": comparison_set.opponent_policy.version,
            "judge": comparison_set.judge_version,
            "method": method.value,
            "first": comparison.first,
            "second": comparison.second,
            "outcome": comparison.outcome,
            "length_difference": comparison.length_difference,
        }
        for comparison_set in comparison_sets
        for prompt, comparison in zip(prompts, comparison_set.comparisons, strict=True)
    ]


def read_matches(rows: Iterable[ComparisonRow], settings: WinRateSettings) -> list[Match]:
    """The decided comparisons of the headline judge. `Live` is the candidate of each evaluation."""
    return [
        Match(row["policy"], row["opponent_policy"], row["prompt_id"], row["outcome"])
        for row in rows
        if row["judge"] == _headline_version(settings, row["policy"])
        and row["policy"] != row["opponent_policy"]
        and not math.isnan(row["outcome"])
    ]


def _headline_version(settings: WinRateSettings, policy: str) -> str | None:
    """What the records call the first judge of an evaluation of this policy."""
    match settings.judges[0]:
        case EvaluationJudge.BASE:
            return BASE
        case EvaluationJudge.LIVE:
            return policy
        case EvaluationJudge.ENDPOINT:
            return settings.endpoint.version if settings.endpoint is not None else None
