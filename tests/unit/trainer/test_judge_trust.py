"""Statistics of trust against values worked out by hand, and the gates."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.settings import JudgeGates
from dynalign_trainer.judge.trust import (
    CanaryTrust,
    average_ranks,
    canary_trust,
    ends_share,
    find_unfitness,
    kendall_tau,
    mann_whitney_auc,
    mean_offset,
    spearman,
)

NAN = math.nan
VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)
PAIRS = st.lists(st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float)), min_size=2, max_size=12)


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert average_ranks([3.0, 1.0, 3.0, 2.0, 3.0]).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    [
        ([2, 3], [0, 1], 1.0),
        ([0, 1], [2, 3], 0.0),
        ([1, 1], [1, 1, 1], 0.5),
        ([3, 1], [2, 1], 0.625),  # of four pairs: 3>2, 3>1, 1<2, 1=1
        ([3, NAN, 1], [2, 1, NAN], 0.625),
    ],
)
def test_auc(higher: list[float], lower: list[float], expected: float) -> None:
    assert mann_whitney_auc(higher, lower) == pytest.approx(expected)


@given(VALUES, VALUES)
def test_auc_counts_pairs(higher: list[float], lower: list[float]) -> None:
    counted = sum((h > x) + (h == x) / 2 for h in higher for x in lower) / (len(higher) * len(lower))
    assert mann_whitney_auc(higher, lower) == pytest.approx(counted)
    assert mann_whitney_auc(lower, higher) == pytest.approx(1 - counted)


def test_auc_of_nothing_is_nothing() -> None:
    assert math.isnan(mann_whitney_auc([NAN], [1.0]))
    assert math.isnan(mann_whitney_auc([1.0], []))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 2, 3, NAN], [1, 2, 3, -9], 1.0),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
    ],
)
def test_spearman(x: list[float], y: list[float], expected: float) -> None:
    assert spearman(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.6),  # 8 pairs agree, 2 do not
        ([1, 1, 2, 3], [1, 2, 2, 3], 0.8),  # 4 agree, 0 do not; 6 - 1 pairs untied on either side
        ([1, 2, 3, 5], [1, 2, 3, NAN], 1.0),
    ],
)
def test_kendall_tau(x: list[float], y: list[float], expected: float) -> None:
    assert kendall_tau(x, y) == pytest.approx(expected)


@given(PAIRS)
def test_rank_correlations_are_symmetric_bounded_and_odd(pairs: list[tuple[float, float]]) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    for correlation in (spearman, kendall_tau):
        value = correlation(x, y)
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert math.isnan(value)
        else:
            assert -1 - 1e-9 <= value <= 1 + 1e-9
            assert correlation(y, x) == pytest.approx(value)
            assert correlation(x, [-v for v in y]) == pytest.approx(-value, abs=1e-9)


def test_ends_of_the_scale_and_offset() -> None:
    assert ends_share([0, 0.5, 0.6, 5, 8.4, 8.5, NAN]) == pytest.approx(3 / 6)
    assert math.isnan(ends_share([NAN]))
    assert mean_offset([0.5, NAN, 1.0], [0.25, 0.1, 0.25]) == pytest.approx(0.5)


def test_canary_trust() -> None:
    found = canary_trust([0.5, 0.7, NAN], [0.1, 0.5])
    assert (found.margin, found.auc, found.reward) == pytest.approx((0.3, 0.875, 0.3))


FIT = CanaryTrust(margin=0.2, auc=0.9, reward=0.3)
STRICT = JudgeGates(min_canary_margin=0.1, min_canary_auc=0.8, max_failed_share=0.1)


@pytest.mark.parametrize(
    ("gates", "failed", "canaries", "named"),
    [
        (STRICT, 0.1, FIT, []),
        (STRICT, 0.1, None, []),
        (JudgeGates(), 0.0, CanaryTrust(-1.0, 0.0, 1.0), []),
        (STRICT, 0.2, FIT, ["maxFailedShare"]),
        (STRICT, NAN, FIT, ["maxFailedShare"]),
        (STRICT, 0.0, CanaryTrust(0.05, 0.9, 0.3), ["minCanaryMargin"]),
        (STRICT, 0.0, CanaryTrust(0.2, 0.7, 0.3), ["minCanaryAuc"]),
        (STRICT, 0.0, CanaryTrust(NAN, NAN, NAN), ["minCanaryMargin", "minCanaryAuc"]),
        (STRICT, 1.0, CanaryTrust(0.0, 0.5, 0.3), ["maxFailedShare", "minCanaryMargin", "minCanaryAuc"]),
    ],
)
def test_gates_name_what_they_refuse(
    gates: JudgeGates, failed: float, canaries: CanaryTrust | None, named: list[str]
) -> None:
    refusal = find_unfitness(gates, failed_share=failed, canaries=canaries, injections=canaries, agreement=None)
    fields = ("maxFailedShare", "minCanaryMargin", "minCanaryAuc")
    assert [field for field in fields if field in (refusal or "")] == named
    assert (refusal is None) == (not named)


def test_a_refusal_quotes_figure_and_gate() -> None:
    refusal = find_unfitness(
        STRICT, failed_share=0.0, canaries=CanaryTrust(0.05, 0.9, 0.3), injections=None, agreement=None
    )
    assert refusal == (
        "real answers are rewarded only +0.0500 above canaries, which got 0.3000 (judging.gates.minCanaryMargin is 0.1)"
    )


@pytest.mark.parametrize(
    ("injections", "refused"),
    [
        (None, False),
        (CanaryTrust(0.2, 0.9, 0.1), False),
        (CanaryTrust(0.05, 0.9, 0.4), True),
        (CanaryTrust(NAN, NAN, NAN), True),
    ],
)
def test_a_judge_that_obeys_orders_is_unfit(injections: CanaryTrust | None, refused: bool) -> None:
    gates = JudgeGates(min_injection_margin=0.1)
    refusal = find_unfitness(gates, failed_share=0.0, canaries=FIT, injections=injections, agreement=None)
    assert (refusal is not None) == refused
    assert "orders to the judge" in (refusal or "orders to the judge")
    assert "judging.gates.minInjectionMargin is 0.1" in (refusal or "judging.gates.minInjectionMargin is 0.1")


@pytest.mark.parametrize(
    ("agreement", "refused"), [(None, False), (0.4, False), (0.39, True), (-1.0, True), (NAN, True)]
)
def test_a_judge_that_ranks_unlike_the_base_model_is_unfit(agreement: float | None, refused: bool) -> None:
    gates = JudgeGates(min_base_agreement=0.4)
    refusal = find_unfitness(gates, failed_share=0.0, canaries=FIT, injections=None, agreement=agreement)
    assert (refusal is not None) == refused
    assert "judging.gates.minBaseAgreement is 0.4" in (refusal or "judging.gates.minBaseAgreement is 0.4")
