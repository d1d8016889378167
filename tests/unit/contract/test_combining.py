"""Shards' numbers become the stage's by definition: sums, largest, or means by the right weight."""

from typing import Any

import pytest

from dynalign_contract.combining import combine_metrics
from dynalign_contract.result import StageResult
from dynalign_contract.stages import Stage
from support.builders import a_result


def combined(stage: Stage, *results: StageResult) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in combine_metrics(stage, results)}


def aspect(**rewards: float) -> dict[str, Any]:
    """Metrics of aspects, whose names are no Python identifiers."""
    return {f"aspect_reward/{name}": reward for name, reward in rewards.items()}


def test_counts_and_rates_of_shards_that_run_side_by_side_add_up() -> None:
    shards = [a_result(rows=rows, candidates=float(rows), tokens=rows * 10.0, tokens_per_second=5.0) for rows in (1, 3)]
    assert combined(Stage.GENERATE, *shards) == {"candidates": 4.0, "tokens": 40.0, "tokens_per_second": 10.0}
    judged = [a_result(retried=1.0, truncated_prompts=2.0, tokens_per_second=7.0) for _ in range(4)]
    assert combined(Stage.JUDGE, *judged) == {"retried": 4.0, "truncated_prompts": 8.0, "tokens_per_second": 28.0}


def test_means_are_weighted_by_what_they_are_means_of() -> None:
    few = a_result(rows=1, truncated_share=1.0, mean_logprob=-1.0, tokens=900.0)
    many = a_result(rows=9, truncated_share=0.0, mean_logprob=-2.0, tokens=100.0)
    found = combined(Stage.GENERATE, few, many)
    assert found["truncated_share"] == pytest.approx(0.1)
    assert found["mean_logprob"] == pytest.approx(-1.1)


def test_rewards_are_weighted_by_the_answers_that_have_one() -> None:
    """The artifact of one shard holds the canaries as well, and answers that failed have no reward."""
    first = a_result(rows=100, reward=1.0, failed_share=0.9, judged=10.0, scored=1.0, **aspect(std=1.0))
    second = a_result(rows=10, reward=0.0, failed_share=0.1, judged=10.0, scored=9.0, **aspect(std=0.0))
    found = combined(Stage.JUDGE, first, second)
    assert found["reward"] == pytest.approx(0.1)
    assert found["aspect_reward/std"] == pytest.approx(0.1)
    assert found["failed_share"] == pytest.approx(0.5)
    assert (found["judged"], found["scored"]) == (20.0, 10.0)


def test_one_shard_s_alarm_is_the_stage_s() -> None:
    found = combined(
        Stage.JUDGE, a_result(rows=99, unfit=0.0, start_seconds=1.0), a_result(rows=1, unfit=1.0, start_seconds=9.0)
    )
    assert found == {"unfit": 1.0, "start_seconds": 9.0}


def test_an_aspect_of_any_name_is_averaged() -> None:
    shards = [a_result(reward_std=0.5, **aspect(std=value, retried=value)) for value in (0.2, 0.4)]
    found = combined(Stage.JUDGE, *shards)
    assert found["aspect_reward/std"] == pytest.approx(0.3)
    assert found["aspect_reward/retried"] == pytest.approx(0.3)
    assert found["reward_std"] == 0.5


def test_what_no_shard_has_and_no_float_holds_is_absent() -> None:
    assert combined(Stage.JUDGE, a_result(canary_auc=None), a_result(canary_auc=None)) == {"canary_auc": None}
    assert combined(Stage.JUDGE, a_result(canary_auc=None), a_result(canary_auc=0.7)) == {"canary_auc": 0.7}
    assert combined(Stage.GENERATE, a_result(tokens=1e308), a_result(tokens=1e308)) == {"tokens": None}
    huge = combined(Stage.JUDGE, a_result(rows=2**53 - 1, reward=1e308), a_result(rows=1, reward=1e308))["reward"]
    assert huge == pytest.approx(1e308)


def test_a_metric_of_another_version_is_averaged() -> None:
    assert combined(Stage.JUDGE, a_result(brand_new=1.0), a_result(brand_new=2.0)) == {"brand_new": 1.5}
