"""Win rates: outcomes, intervals that cover, length control, biases of the judge."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_trainer.evaluate import bootstrap, statistics
from dynalign_trainer.evaluate.bootstrap import Interval
from dynalign_trainer.evaluate.statistics import Comparison, decide

NAN = math.nan


def comparison(first: float, second: float | None = None, *, length: int = 0, margin: float = 0.0) -> Comparison:
    other = first if second is None else second
    return Comparison(first, other, decide(first, other, margin), length, both_orders=second is not None)


def with_outcomes(*outcomes: float, lengths: list[int] | None = None) -> list[Comparison]:
    return [
        comparison(outcome, length=length)
        for outcome, length in zip(outcomes, lengths or [0] * len(outcomes), strict=True)
    ]


COMPARISONS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-300, 300)), min_size=1, max_size=30
).map(lambda pairs: with_outcomes(*[o for o, _ in pairs], lengths=[d for _, d in pairs]))


def swapped(comparisons: list[Comparison]) -> list[Comparison]:
    return [
        Comparison(1 - d.second, 1 - d.first, 1 - d.outcome, -d.length_difference, both_orders=d.both_orders)
        for d in comparisons
    ]


@pytest.mark.parametrize(
    ("first", "second", "margin", "outcome"),
    [
        (0.9, 0.6, 0.0, 1.0),
        (0.4, 0.1, 0.0, 0.0),
        (0.9, 0.1, 0.0, 0.5),
        (0.5, 0.9, 0.0, 0.5),
        (0.9, 0.6, 0.1, 0.5),
        (0.9, 0.61, 0.1, 1.0),
        (0.39, 0.39, 0.1, 0.0),
    ],
)
def test_only_consistent_verdicts_decide(first: float, second: float, margin: float, outcome: float) -> None:
    assert decide(first, second, margin) == outcome


def test_a_judge_without_an_answer_decides_nothing() -> None:
    comparisons = [comparison(NAN, 0.9), comparison(0.9, 0.8)]
    assert math.isnan(comparisons[0].outcome)
    assert statistics.win_rate(comparisons) == 1.0
    assert statistics.order_flips(comparisons) == 0.0
    assert math.isnan(statistics.win_rate(comparisons[:1]))
    assert math.isnan(statistics.length_controlled_win_rate(comparisons[:1]))
    interval = statistics.bootstrap_interval(comparisons[:1], confidence=0.95, resamples=100, seed=0)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_biases_of_the_judge() -> None:
    always_first = [comparison(0.9, 0.2), comparison(0.8, 0.1)]
    assert statistics.order_flips(always_first) == 1.0
    assert statistics.first_position(always_first) == 1.0
    assert statistics.win_rate(always_first) == 0.5
    assert statistics.mean_preference(always_first) == pytest.approx(0.5)
    assert statistics.tie_share(always_first) == 1.0
    mixed = [comparison(0.9, 0.8), comparison(0.3, 0.2), comparison(0.7, 0.4), comparison(0.5, 0.5)]
    assert statistics.order_flips(mixed) == 0.25
    assert statistics.first_position(mixed) == pytest.approx((1 + 0 + 0 + 1 + 1 + 1 + 0.5 + 0.5) / 8)
    assert statistics.tie_share(mixed) == 0.5


def test_both_conventions_for_verdicts_that_change_with_the_order() -> None:
    found = [comparison(0.9, 0.8), comparison(0.9, 0.1), comparison(0.2, 0.7), comparison(0.3, 0.1), comparison(0.7)]
    assert statistics.win_rate(found) == pytest.approx(3 / 5), "ties one half"
    assert statistics.win_rate(statistics.consistent(found)) == pytest.approx(2 / 3), "left out"
    assert statistics.consistent([comparison(0.5, 0.9)]) != [], "a half favours neither"
    assert statistics.consistent([comparison(0.9, 0.1)]) == []


def test_identical_and_singly_scored_answers_say_nothing_about_position() -> None:
    assert math.isnan(statistics.first_position(with_outcomes(1.0, 0.5)))
    assert math.isnan(statistics.order_flips(with_outcomes(1.0, 0.5)))


@given(COMPARISONS, st.integers(0, 2**31))
def test_the_interval_holds_the_rate_and_mirrors_when_the_sides_change(
    comparisons: list[Comparison], seed: int
) -> None:
    rate = statistics.win_rate(comparisons)
    found = statistics.bootstrap_interval(comparisons, confidence=0.9, resamples=200, seed=seed)
    mirrored = statistics.bootstrap_interval(swapped(comparisons), confidence=0.9, resamples=200, seed=seed)
    assert 0 <= found.low <= found.high <= 1
    assert found.low - 0.35 <= rate <= found.high + 0.35
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert statistics.win_rate(swapped(comparisons)) == pytest.approx(1 - rate)


def test_a_seed_fixes_the_interval_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = with_outcomes(*([1.0] * 12 + [0.0] * 8 + [0.5] * 5))
    whole = statistics.bootstrap_interval(comparisons, confidence=0.95, resamples=1001, seed=3)
    monkeypatch.setattr(bootstrap, "_CHUNK", 25 * 100)
    assert statistics.bootstrap_interval(comparisons, confidence=0.95, resamples=1001, seed=3) == whole


def test_unanimous_outcomes_have_no_width() -> None:
    assert statistics.bootstrap_interval(with_outcomes(1.0, 1.0), confidence=0.95, resamples=100, seed=0) == Interval(
        1, 1
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(11)
    truth, covered, trials = 0.6, 0, 300
    for trial in range(trials):
        comparisons = with_outcomes(*(generator.random(60) < truth).astype(float))
        interval = statistics.bootstrap_interval(comparisons, confidence=0.9, resamples=400, seed=trial)
        covered += interval.low <= truth <= interval.high
    assert 0.83 <= covered / trials <= 0.96  # three standard errors around 0.9, and the bootstrap's known shortfall


@given(COMPARISONS)
def test_length_control_is_bounded_and_mirrors_when_the_sides_change(comparisons: list[Comparison]) -> None:
    rate = statistics.length_controlled_win_rate(comparisons)
    assert 0 < rate < 1
    assert statistics.length_controlled_win_rate(swapped(comparisons)) == pytest.approx(1 - rate, abs=1e-6)


@pytest.mark.parametrize(("wins", "count"), [(3, 4), (1, 4), (2, 4)])
def test_equal_lengths_need_no_control(wins: int, count: int) -> None:
    comparisons = with_outcomes(*[1.0] * wins, *[0.0] * (count - wins))
    assert statistics.length_controlled_win_rate(comparisons) == pytest.approx(wins / count, abs=0.005)


def test_wins_that_length_explains_vanish() -> None:
    lengths = [*range(20, 120, 10), -5, -15]
    comparisons = with_outcomes(*[1.0] * 10, 0.0, 0.0, lengths=lengths)
    assert statistics.win_rate(comparisons) == pytest.approx(10 / 12)
    assert statistics.length_controlled_win_rate(comparisons) < 0.6


@pytest.mark.parametrize("preference", [0.35, 0.5, 0.7])
def test_length_control_recovers_a_planted_preference(preference: float) -> None:
    """Answers are longer by 40 tokens on average and length alone wins; what is left at equal length is known."""
    generator = np.random.default_rng(29)
    plain, controlled = [], []
    for _ in range(40):
        lengths = generator.normal(40, 60, size=400).round()
        logit = math.log(preference / (1 - preference)) + 1.5 * np.tanh(lengths / math.sqrt(40**2 + 60**2))
        outcomes = (generator.random(400) < 1 / (1 + np.exp(-logit))).astype(float)
        comparisons = with_outcomes(*outcomes, lengths=[int(length) for length in lengths])
        plain.append(statistics.win_rate(comparisons))
        controlled.append(statistics.length_controlled_win_rate(comparisons))
    assert np.mean(controlled) == pytest.approx(preference, abs=0.02)
    assert np.mean(plain) > preference + 0.05


def test_the_interval_at_equal_length_holds_the_rate_and_covers_the_truth() -> None:
    """Length decides nothing here, so that the truth at equal length is the plain one."""
    generator, truth, trials = np.random.default_rng(31), 0.6, 120
    covered = 0
    for trial in range(trials):
        lengths = [int(length) for length in generator.normal(20, 60, size=80)]
        comparisons = with_outcomes(*(generator.random(80) < truth).astype(float), lengths=lengths)
        found = statistics.length_controlled_interval(comparisons, confidence=0.9, resamples=200, seed=trial)
        assert found.low <= statistics.length_controlled_win_rate(comparisons) <= found.high
        covered += found.low <= truth <= found.high
    assert 0.81 <= covered / trials <= 0.98


def test_fits_side_by_side_are_the_fits_alone() -> None:
    generator = np.random.default_rng(37)
    design = np.stack([np.ones((3, 12)), generator.normal(size=(3, 12))], axis=-1)
    outcomes = generator.choice([0.0, 0.5, 1.0], size=(3, 12))
    together = statistics.fit_logistic(design, outcomes)
    for k in range(3):
        assert together[k] == pytest.approx(statistics.fit_logistic(design[k], outcomes[k]), abs=1e-8)


def test_wins_in_spite_of_length_count_more() -> None:
    lengths = [-40, -30, -20, -10, 10, 20, 30, 40]
    comparisons = with_outcomes(1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, 0.0, lengths=lengths)
    plain = statistics.win_rate(comparisons)
    longer_loses = statistics.length_controlled_win_rate([*comparisons, *with_outcomes(0.0, 0.0, lengths=[60, 80])])
    assert longer_loses > plain - 0.1


def test_logistic_regression_against_a_closed_form() -> None:
    design = np.array([[1.0, 0.0]] * 4 + [[1.0, 1.0]] * 4)
    outcomes = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=float)
    found = statistics.fit_logistic(design, outcomes, ridge=1e-12)
    assert found == pytest.approx([math.log(1 / 3), math.log(3) - math.log(1 / 3)], abs=1e-6)


@given(COMPARISONS)
def test_the_fit_is_a_stationary_point_even_where_outcomes_are_separable(comparisons: list[Comparison]) -> None:
    outcomes = np.array([d.outcome for d in comparisons])
    design = np.stack([np.ones(len(comparisons)), np.tanh([d.length_difference / 100 for d in comparisons])], axis=1)
    beta = statistics.fit_logistic(design, outcomes)
    fitted = 1 / (1 + np.exp(-design @ beta))
    gradient = design.T @ (fitted - outcomes) / len(comparisons) + 1e-3 * beta
    assert np.abs(gradient).max() < 1e-6
