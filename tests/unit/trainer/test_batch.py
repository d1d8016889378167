"""Batch building: joining, masking, dropping, assignment to steps."""

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Aggregate
from dynalign_contract.records import JudgementRow, RolloutRow
from dynalign_contract.settings import AdvantageScale, TrainingSettings
from dynalign_trainer.scoring.scores import standard_error
from dynalign_trainer.train.batch import Batch, build_batch
from support.training_data import make_judgements, make_rollouts

NAN = math.nan


def build(rollouts: list[RolloutRow], judgements: list[JudgementRow], *, seed: int = 0, **settings: Any) -> Batch:
    return build_batch(rollouts, judgements, TrainingSettings(**settings), policy="base", seed=seed)


def keys(batch: Batch, *, masked: bool) -> set[tuple[str, int]]:
    return {(row["prompt_id"], row["candidate"]) for row in batch.rows if row["masked"] is masked}


def test_an_unscored_candidate_is_masked_and_does_not_move_the_baseline() -> None:
    rollouts = make_rollouts(1, 3)
    batch = build(rollouts, make_judgements(rollouts, [0.0, NAN, 1.0]), scale=AdvantageScale.NONE)
    assert [row["advantage"] for row in batch.rows] == [-0.5, 0.0, 0.5]
    assert keys(batch, masked=True) == {("p000", 1)}


def test_truncated_candidates_count_for_the_baseline_but_carry_no_loss() -> None:
    rollouts = make_rollouts(1, 4)
    judgements = make_judgements(rollouts, [0.0, 1.0, 0.0, 0.0])
    assert keys(build(rollouts, judgements), masked=True) == set()
    batch = build(rollouts, judgements, mask_truncated=True, scale=AdvantageScale.NONE)
    assert keys(batch, masked=True) == {("p000", 1)}
    assert [row["advantage"] for row in batch.rows] == [-0.25, 0.75, -0.25, -0.25]
    assert batch.loss_tokens == (sum(len(r["completion_ids"]) for r in rollouts if r["finish_reason"] == "stop"),)


@pytest.mark.parametrize("damage", [{"completion_ids": [], "logprobs": []}, {"logprobs": [NAN] * 40}])
def test_a_completion_that_cannot_be_trained_on_is_masked(damage: dict[str, Any]) -> None:
    rollouts = make_rollouts(1, 3)
    width = len(rollouts[0]["completion_ids"])
    damaged: Any = rollouts[0]
    damaged |= {name: values[:width] for name, values in damage.items()}
    assert keys(build(rollouts, make_judgements(rollouts)), masked=True) == {("p000", 0)}


@pytest.mark.parametrize(
    ("rewards", "floor", "kept"),
    [
        ([0.5, 0.5, 0.1, 0.9], 1e-6, {"p001"}),
        ([0.5, NAN, 0.1, 0.9], 1e-6, {"p001"}),
        ([0.5, 0.5001, 0.1, 0.9], 1e-3, {"p001"}),
        ([0.5, 0.5, 0.9, 0.9], 1e-6, set()),
    ],
)
def test_groups_without_spread_are_dropped_and_counted(rewards: list[float], floor: float, kept: set[str]) -> None:
    rollouts = make_rollouts(2, 2)
    batch = build(rollouts, make_judgements(rollouts, rewards), min_group_std=floor)
    assert {row["prompt_id"] for row in batch.rows} == kept
    assert batch.dropped_groups == 2 - len(kept)


@pytest.mark.parametrize(
    ("errors", "floor", "kept", "noisy"),
    [
        (None, 1.0, {"p000", "p001"}, None),  # no votes
        ([0.05, 0.07, 0.1, 0.1], 1.0, {"p000", "p001"}, 0),
        ([0.05, 0.1, 0.1, 0.1], 1.0, {"p001"}, 1),  # 0.0707 is no more than 0.075
        ([0.05, NAN, 0.6, 0.6], 1.0, {"p000"}, 1),
        ([0.03, 0.04, 0.1, 0.1], 3.0, {"p001"}, 1),
        ([0.9, 0.9, 0.9, 0.9], 0.0, {"p000", "p001"}, None),
        ([0.9, 0.9, 0.9, 0.9], 1.0, set(), 2),
    ],
)
def test_groups_within_the_judges_noise_are_dropped_and_counted(
    errors: list[float] | None, floor: float, kept: set[str], noisy: int | None
) -> None:
    rollouts = make_rollouts(2, 2)
    judgements = make_judgements(rollouts, [0.5, 0.6, 0.1, 0.9], errors=errors)
    batch = build(rollouts, judgements, noise_floor=floor)
    assert {row["prompt_id"] for row in batch.rows} == kept
    assert batch.dropped_groups == 2 - len(kept)
    assert batch.noisy_groups == noisy
    assert batch.noisy_share == (None if noisy is None else noisy / 2)


def test_equal_rewards_are_no_matter_of_noise() -> None:
    rollouts = make_rollouts(1, 2)
    batch = build(rollouts, make_judgements(rollouts, [0.5, 0.5], errors=[0.1, 0.1]))
    assert (batch.dropped_groups, batch.noisy_groups) == (1, 0)


@pytest.mark.parametrize(("floor", "low", "high"), [(1.0, 0.4, 0.65), (2.0, 0.97, 1.0)])
def test_how_many_groups_of_equally_good_answers_a_floor_drops(floor: float, low: float, high: float) -> None:
    draw = random.Random(0)
    rollouts = make_rollouts(300, 8)
    votes = [[draw.gauss(4.5, 1.0) for _ in range(4)] for _ in rollouts]
    rewards = [statistics.fmean(found) / 9 for found in votes]
    errors = [standard_error([found], Aggregate.MEAN) for found in votes]
    batch = build(rollouts, make_judgements(rollouts, rewards, errors=errors), noise_floor=floor)
    assert batch.noisy_share is not None
    assert low <= batch.noisy_share <= high


def test_the_batch_deviation_is_that_of_every_scored_reward() -> None:
    rollouts = make_rollouts(2, 2)
    rewards = [0.5, 0.5, 0.1, 0.9]
    batch = build(rollouts, make_judgements(rollouts, rewards), scale=AdvantageScale.BATCH)
    expected = 0.4 / (statistics.stdev(rewards) + 1e-4)
    assert [row["advantage"] for row in batch.rows] == pytest.approx([-expected, expected])


def test_no_reward_at_all_is_bad_input() -> None:
    rollouts = make_rollouts(2, 2)
    with pytest.raises(BadInputError, match="every reward is NaN"):
        build(rollouts, make_judgements(rollouts, [NAN] * 4))


def test_rows_that_do_not_belong_together_are_bad_input() -> None:
    rollouts = make_rollouts(2, 2)
    judgements = make_judgements(rollouts)
    cases: list[tuple[list[RolloutRow], list[JudgementRow], str]] = [
        (rollouts, judgements[1:], r"'p000' candidate 0 \(rollouts only\)"),
        (rollouts[1:], judgements, r"'p000' candidate 0 \(judgements only\)"),
        (rollouts, [*judgements, judgements[0]], "judgements name prompt 'p000' candidate 0 twice"),
        ([*rollouts, rollouts[0]], judgements, "rollouts name prompt 'p000' candidate 0 twice"),
        ([], [], "no candidate"),
        ([rollouts[0] | {"policy": "iteration-004"}, *rollouts[1:]], judgements, "sampled by policy 'iteration-004'"),
        ([rollouts[0] | {"logprobs": [0.0]}, *rollouts[1:]], judgements, "1 log-probabilities"),
        ([rollouts[0] | {"prompt_ids": []}, *rollouts[1:]], judgements, "empty prompt"),
    ]
    for broken_rollouts, broken_judgements, message in cases:
        with pytest.raises(BadInputError, match=message):
            build(broken_rollouts, broken_judgements)


@given(prompts=st.integers(1, 12), per_step=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_group_with_spread_is_in_exactly_one_step(prompts: int, per_step: int, seed: int) -> None:
    rollouts = make_rollouts(prompts, 3)
    batch = build(rollouts, make_judgements(rollouts), seed=seed, prompts_per_step=per_step)
    groups = {(row["prompt_id"], row["step"]) for row in batch.rows}
    assert len(groups) == prompts
    assert len(batch.rows) == 3 * prompts
    assert batch.steps == math.ceil(prompts / per_step)
    assert sum(batch.loss_tokens) == sum(len(row["completion_ids"]) for row in rollouts)
    for step in range(batch.steps - 1):
        assert sum(s == step for _, s in groups) == per_step


def test_the_order_depends_on_the_seed_and_not_on_the_order_of_the_input() -> None:
    rollouts = make_rollouts(10, 2)
    judgements = make_judgements(rollouts)
    batch = build(rollouts, judgements)
    assert batch == build(rollouts[::-1], judgements[::-1])
    assert [row["prompt_id"] for row in batch.rows] != [
        row["prompt_id"] for row in build(rollouts, judgements, seed=1).rows
    ]
