"""Advantages: tables worked out by hand, and properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.settings import AdvantageScale
from dynalign_trainer.train.advantages import EPSILON, group_advantages, unbiased_std

NAN = math.nan
rewards = st.lists(st.floats(0, 1) | st.just(NAN), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("scale", "group", "expected"),
    [
        (AdvantageScale.NONE, [0.0, 1.0], [-0.5, 0.5]),
        (AdvantageScale.NONE, [0.0, NAN, 1.0], [-0.5, 0.0, 0.5]),
        (AdvantageScale.NONE, [NAN, NAN], [0.0, 0.0]),
        # ddof 1: the deviation of (0, 1) is sqrt(1/2), not 1/2.
        (AdvantageScale.GROUP, [0.0, 1.0], [-0.5 / (math.sqrt(0.5) + EPSILON), 0.5 / (math.sqrt(0.5) + EPSILON)]),
        (AdvantageScale.GROUP, [0.4, 0.4, 0.4], [0.0, 0.0, 0.0]),
        (AdvantageScale.BATCH, [0.0, 1.0], [-0.5 / (0.25 + EPSILON), 0.5 / (0.25 + EPSILON)]),
    ],
)
def test_worked_examples(scale: AdvantageScale, group: list[float], expected: list[float]) -> None:
    assert group_advantages(group, scale, batch_std=0.25) == pytest.approx(expected)


@given(rewards, st.sampled_from(AdvantageScale))
def test_advantages_of_a_group_add_up_to_nothing(group: list[float], scale: AdvantageScale) -> None:
    assert sum(group_advantages(group, scale, batch_std=0.3)) == pytest.approx(0, abs=1e-6)


@given(rewards, st.sampled_from(AdvantageScale))
def test_order_of_rewards_is_order_of_advantages(group: list[float], scale: AdvantageScale) -> None:
    pairs = [(r, a) for r, a in zip(group, group_advantages(group, scale, 0.3), strict=True) if not math.isnan(r)]
    ordered = [a for _, a in sorted(pairs)]
    assert ordered == sorted(ordered)


@given(rewards)
def test_unscored_rewards_do_not_move_the_deviation(group: list[float]) -> None:
    assert unbiased_std([*group, NAN]) == unbiased_std(group)
