"""What a judged shard looks like in numbers."""

import math
from typing import Any

import pytest

from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.objective import builtin_objective
from dynalign_trainer.judge.metrics import judgement_metrics, unscored_share

OBJECTIVE = builtin_objective("collective-agency")
NAN = math.nan


def row(
    prompt: str, reward: float, *, raw: float | None = None, scores: tuple[float, ...] = (), retries: int = 0
) -> Any:
    given = scores or (9 * reward,) * 4
    return {
        "prompt_id": prompt,
        "candidate": 0,
        "scores": [{"aspect": a.id, "score": s, "mass": 0.5} for a, s in zip(OBJECTIVE.aspects, given, strict=True)],
        "raw_reward": reward if raw is None else raw,
        "penalties": {},
        "reward": reward,
        "retries": retries,
        "judge": "base",
    }


def test_means_and_spreads_leave_out_what_failed() -> None:
    rows = [
        row("a", 0.2),
        row("a", 0.4),
        row("a", NAN, scores=(9.0, NAN, 0.0, 4.5), retries=2),
        row("b", 0.6),
        row("b", 0.6),
    ]
    shape = judgement_metrics(rows, [1, 2, 3, 4, 5], OBJECTIVE)
    rewards = shape.rewards
    assert rewards[JudgeMetrics.reward] == pytest.approx(0.45)
    assert rewards[JudgeMetrics.aspect_reward.of("knowledge")] == pytest.approx((0.2 + 0.4 + 1.0 + 0.6 + 0.6) / 5)
    assert rewards[JudgeMetrics.aspect_reward.of("benevolence")] == pytest.approx(0.45)
    assert rewards[JudgeMetrics.group_std] == pytest.approx((0.2 / math.sqrt(2) + 0.0) / 2)
    assert rewards[JudgeMetrics.zero_variance_share] == 0.5
    assert rewards[JudgeMetrics.failed_share] == pytest.approx(0.2)
    assert rewards[JudgeMetrics.retried] == 2
    assert rewards[JudgeMetrics.mass] == pytest.approx(0.5)
    assert shape.biases[JudgeMetrics.length_correlation] == pytest.approx(1.0)
    assert shape.biases[JudgeMetrics.ends_share] == pytest.approx(2 / 19)


def test_length_correlation_is_within_groups_and_before_penalties() -> None:
    rows = [row("a", 0.1, raw=0.9), row("a", 0.8), row("b", 0.3), row("b", 0.2)]
    shape = judgement_metrics(rows, [20, 10, 900, 1000], OBJECTIVE)
    assert shape.biases[JudgeMetrics.length_correlation] == pytest.approx((1.0 - 1.0) / 2)


def test_the_most_important_metrics_come_first() -> None:
    names = [metric.name for metric in judgement_metrics([row("a", 0.5)], [1], OBJECTIVE).rewards]
    assert names[:5] == ["reward", *(f"aspect_reward/{a.id}" for a in OBJECTIVE.aspects)]


def test_a_group_that_failed_teaches_nothing() -> None:
    shape = judgement_metrics([row("a", NAN), row("a", NAN)], [1, 2], OBJECTIVE)
    assert shape.rewards[JudgeMetrics.zero_variance_share] == 1.0
    assert shape.rewards[JudgeMetrics.failed_share] == 1.0
    assert math.isnan(shape.rewards[JudgeMetrics.reward] or 0.0)


def test_nothing_has_no_failed_share() -> None:
    assert math.isnan(unscored_share([]))
