"""Several judges' rewards become one, and their disagreement is measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.settings import Combine
from dynalign_trainer.scoring.combining import (
    CombinationRule,
    combined_error,
    disagreement_error,
    disagreements,
    weighted,
)

NONE = math.nan


@pytest.mark.parametrize(
    ("how", "weights", "rewards", "expected"),
    [
        (Combine.MEAN, (1, 1), (0.2, 0.6), 0.4),
        (Combine.MEAN, (3, 1), (0.2, 0.6), 0.3),
        (Combine.MEAN, (1, 1, 1), (0.1, 0.2, 0.9), 0.4),
        (Combine.MEDIAN, (1, 1, 1), (0.1, 0.2, 0.9), 0.2),
        (Combine.MEDIAN, (1, 1), (0.9, 0.1), 0.5),
        (Combine.MEDIAN, (1, 1, 3), (0.1, 0.2, 0.9), 0.9),
        (Combine.MEDIAN, (1, 1, 2), (0.1, 0.2, 0.9), 0.55),
        (Combine.MEDIAN, (1,), (0.7,), 0.7),
        (Combine.MINIMUM, (1, 1, 1), (0.4, 0.2, 0.9), 0.2),
        (Combine.MINIMUM, (1, 1), (NONE, 0.6), 0.6),
        (Combine.MEAN, (1, 1, 1), (0.1, NONE, 0.5), 0.3),
        (Combine.MEDIAN, (1, 1, 1), (0.1, NONE, 0.5), 0.3),
        (Combine.MEAN, (1, 1), (NONE, NONE), NONE),
    ],
)
def test_one_reward_of_many(
    how: Combine, weights: tuple[float, ...], rewards: tuple[float, ...], expected: float
) -> None:
    rule = CombinationRule(how, dict(zip("abc", weights, strict=False)), quorum=1)
    found = rule.reward(dict(zip("abc", rewards, strict=False)))
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("how", Combine)
@pytest.mark.parametrize(("quorum", "answers"), [(2, False), (1, True)])
def test_fewer_judges_than_the_quorum_give_no_reward(how: Combine, quorum: int, answers: bool) -> None:
    rule = CombinationRule(how, {"a": 1.0, "b": 1.0}, quorum)
    assert math.isnan(rule.reward({"a": 0.5, "b": NONE})) is not answers
    assert rule.reward({"a": 0.5, "b": 0.5}) == 0.5


def test_a_judge_without_weight_takes_no_part_whatever_it_says() -> None:
    rule = CombinationRule(Combine.MINIMUM, {"a": 1.0}, quorum=1)
    assert rule.reward({"a": 0.5, "measured": 0.0}) == 0.5
    assert math.isnan(rule.reward({"a": NONE, "measured": 0.9}))


@given(
    how=st.sampled_from(Combine),
    given=st.lists(st.tuples(st.floats(0.01, 1000), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_the_combined_reward_lies_between_the_judges_and_is_their_shares(
    how: Combine, given: list[tuple[float, float]]
) -> None:
    rule = CombinationRule(how, {str(i): weight for i, (weight, _) in enumerate(given)}, quorum=len(given))
    rewards = {str(i): reward for i, (_, reward) in enumerate(given)}
    shares = rule.shares(rewards)
    assert math.fsum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    assert min(rewards.values()) - 1e-9 <= weighted(shares, rewards) <= max(rewards.values()) + 1e-9


def test_the_error_of_the_mean_is_that_of_independent_judges() -> None:
    assert combined_error({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.4}) == pytest.approx(0.25)
    assert combined_error({"a": 1.0}, {"a": 0.3, "b": NONE}) == pytest.approx(0.3)
    assert math.isnan(combined_error({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": NONE}))
    assert math.isnan(combined_error({}, {}))


def test_a_judge_that_is_only_stricter_does_not_disagree() -> None:
    strict = [{"a": 0.2, "b": 0.5}, {"a": 0.3, "b": 0.6}, {"a": 0.6, "b": 0.9}]
    assert disagreements(strict) == pytest.approx([0, 0, 0], abs=1e-12)
    contrary = [{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}]
    assert disagreements(contrary) == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])


@pytest.mark.parametrize(
    ("group", "known"),
    [
        ([{"a": 0.1, "b": 0.2}, {"a": 0.3, "b": NONE}, {"a": 0.5, "b": 0.7}], [True, False, True]),
        ([{"a": 0.1, "b": 0.2}, {"a": 0.3, "b": NONE}], [False, False]),
        ([{"a": 0.1, "b": NONE}, {"a": 0.3, "b": NONE}], [False, False]),
        ([{"a": 0.1, "b": 0.2}], [False]),
    ],
)
def test_disagreement_needs_two_judges_and_two_answers(group: list[dict[str, float]], known: list[bool]) -> None:
    assert [not math.isnan(value) for value in disagreements(group)] == known


def test_disagreement_becomes_a_standard_error_by_the_judges_that_scored() -> None:
    assert disagreement_error(0.2, {"a": 0.1, "b": 0.5, "c": NONE, "d": 0.1, "e": 0.1}) == pytest.approx(0.1)
    assert math.isnan(disagreement_error(NONE, {"a": 0.1}))
