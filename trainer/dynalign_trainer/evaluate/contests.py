"""Contests: all comparisons of the policy with one opponent by one judge, and their records."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import Policy
from dynalign_contract.records import ComparisonRow, PromptRow
from dynalign_contract.settings import EvaluationJudge, WinRateMethod, WinRateSettings
from dynalign_trainer.evaluate.ratings import Match
from dynalign_trainer.evaluate.statistics import Duel

BASE: Final = "base"
PREVIOUS: Final = "previous"


@dataclass(frozen=True)
class Contest:
    """One judge's comparisons of the policy with one opponent, a duel for each held-out prompt."""

    opponent: str
    """`base` or `previous`."""
    opponent_policy: Policy
    judge: EvaluationJudge
    judge_version: str
    duels: list[Duel]


def build_comparisons(
    contests: Iterable[Contest], prompts: Sequence[PromptRow], *, policy: Policy, method: WinRateMethod
) -> list[ComparisonRow]:
    """COMPARISON rows, contest by contest, in the order of the prompts."""
    return [
        {
            "prompt_id": prompt["prompt_id"],
            "policy": policy.version,
            "opponent": contest.opponent,
            "opponent_policy": contest.opponent_policy.version,
            "judge": contest.judge_version,
            "method": method.value,
            "first": duel.first,
            "second": duel.second,
            "outcome": duel.outcome,
            "length_difference": duel.length_difference,
        }
        for contest in contests
        for prompt, duel in zip(prompts, contest.duels, strict=True)
    ]


def read_matches(rows: Iterable[ComparisonRow], settings: WinRateSettings) -> list[Match]:
    """The decided comparisons of the headline judge. `Live` is whoever was the candidate at the time."""
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
