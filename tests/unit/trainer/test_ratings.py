"""Ratings: planted strengths come back, records are read as they were judged, nobody is infinitely strong."""

import math
from typing import Any

import numpy as np
import pytest

from dynalign_contract.config import Policy
from dynalign_contract.endpoints import EndpointSettings
from dynalign_contract.settings import EvaluationJudge, WinRateMethod, WinRateSettings
from dynalign_trainer.evaluate.comparison_sets import ComparisonSet, build_comparisons, read_matches
from dynalign_trainer.evaluate.ratings import Match, Rating, rate
from dynalign_trainer.evaluate.statistics import Comparison

POINTS = {"base": 0.0, "iteration-000": 60.0, "iteration-001": 150.0, "iteration-002": 90.0}
PAIRS = [
    ("iteration-000", "base"),
    *(("iteration-001", "base"), ("iteration-001", "iteration-000")),
    *(("iteration-002", "base"), ("iteration-002", "iteration-001")),
]


def played(prompts: int) -> list[Match]:
    generator = np.random.default_rng(23)
    odds = [(policy, against, 1 / (1 + 10 ** ((POINTS[against] - POINTS[policy]) / 400))) for policy, against in PAIRS]
    return [
        Match(policy, against, f"h{prompt}", float(generator.random() < chance))
        for prompt in range(prompts)
        for policy, against, chance in odds
    ]


def rated(matches: list[Match]) -> dict[str, Rating]:
    return {rating.policy: rating for rating in rate(matches, confidence=0.95, resamples=30, seed=0)}


def test_planted_strengths_come_back() -> None:
    found = rated(played(500))
    assert list(found) == list(POINTS)
    assert found["base"].points == 0
    for policy, points in POINTS.items():
        assert found[policy].points == pytest.approx(points, abs=35)
        assert found[policy].interval.low <= found[policy].points <= found[policy].interval.high
    assert found["iteration-001"].matches == 3 * 500


def test_a_single_opponent_gives_the_odds_of_the_win_rate() -> None:
    outcomes = [1.0] * 6 + [0.5] * 2 + [0.0] * 2
    found = rated([Match("iteration-000", "base", f"h{k}", outcome) for k, outcome in enumerate(outcomes)])
    wins, losses = 6 + 2 / 2 + 0.5, 2 + 2 / 2 + 0.5  # the prior's draw counts half for each
    assert found["iteration-000"].points == pytest.approx(400 * math.log10(wins / losses), abs=0.1)


def test_who_has_never_lost_is_finitely_strong() -> None:
    found = rated([Match("iteration-000", "base", f"h{k}", 1.0) for k in range(20)])
    assert 400 < found["iteration-000"].points < 800


JUDGES = {EvaluationJudge.BASE: "base", EvaluationJudge.LIVE: "iteration-001", EvaluationJudge.ENDPOINT: "endpoint:big"}


def comparison_set(opponent: str, version: str, judge: EvaluationJudge, outcome: float) -> ComparisonSet:
    comparisons = [Comparison(0.5, 0.5, outcome, 3, both_orders=True)]
    return ComparisonSet(opponent, Policy(version=version), judge, JUDGES[judge], comparisons)


def test_matches_are_those_of_the_headline_judge_and_decided() -> None:
    policy, (base, live, other) = "iteration-001", JUDGES
    comparison_sets = [
        comparison_set("base", "base", base, 1.0),
        comparison_set("previous", "iteration-000", base, math.nan),
        comparison_set("base", "base", live, 0.0),
        comparison_set("previous", "iteration-000", live, 0.5),
        comparison_set("base", "base", other, 0.5),
    ]
    prompts: Any = [{"prompt_id": "h"}]
    rows = build_comparisons(comparison_sets, prompts, policy=Policy(version=policy), method=WinRateMethod.PAIRWISE)

    def matches(judge: EvaluationJudge, model: str = "big") -> list[Match]:
        endpoint = EndpointSettings(url="http://vllm:8000/v1", model=model)
        return read_matches(rows, WinRateSettings(judges=(judge,), endpoint=endpoint))

    assert matches(base) == [Match(policy, "base", "h", 1.0)]
    assert matches(live) == [Match(policy, "base", "h", 0.0), Match(policy, "iteration-000", "h", 0.5)]
    assert matches(other) == [Match(policy, "base", "h", 0.5)]
    assert matches(other, model="another") == []
