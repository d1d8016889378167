"""Capability: what the paired bootstrap says of a change, how often it is right, and how rarely the gate errs."""

import numpy as np
import pytest

from dynalign_contract.estimate import Estimate
from dynalign_contract.settings import CapabilitySettings
from dynalign_trainer.evaluate.capability import summarise
from dynalign_trainer.evaluate.paired import Capability, TaskScores, estimate_capability

DISCORDANCE = 0.1
"""Share of the items that one of the two models solves and the other does not."""


def estimated(*tasks: TaskScores, confidence: float = 0.95, seed: int = 0) -> Capability:
    return estimate_capability(tasks, confidence=confidence, resamples=400, seed=seed)


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    """Low end, value and high end of an estimate that has all three."""
    assert estimate.low is not None
    assert estimate.value is not None
    assert estimate.high is not None
    return estimate.low, estimate.value, estimate.high


def exam(generator: np.random.Generator, name: str, items: int, drop: float) -> TaskScores:
    """Two models of which the policy is worse by `drop` in expectation."""
    lost, won = (DISCORDANCE + drop) / 2, (DISCORDANCE - drop) / 2
    both = (1 - DISCORDANCE) / 2
    kind = generator.choice(4, size=items, p=[lost, won, both, both])
    return TaskScores(name, np.isin(kind, (1, 2)).astype(float), np.isin(kind, (0, 2)).astype(float))


def scores(*values: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array(values, dtype=np.float64)


def test_tasks_weigh_the_same_whatever_their_size() -> None:
    small = TaskScores("small", scores(1, 1), scores(0, 0))
    large = TaskScores("large", scores(*[0] * 20), scores(*[0] * 20))
    found = estimated(small, large)
    assert (found.score.value, found.delta.value) == (0.5, 0.5)
    assert (small.mean, small.delta, large.delta) == (1.0, 1.0, 0.0)


def test_a_model_against_itself_has_neither_lost_nor_won() -> None:
    same = scores(1, 0, 1, 1, 0)
    found = estimated(TaskScores("t", same, same))
    assert (found.delta.value, found.delta.low, found.delta.high) == (0, 0, 0)
    low, value, high = numbers(found.score)
    assert low < value < high
    assert not found.dropped(0.0)


def test_pairing_makes_the_difference_sharper_than_its_parts() -> None:
    generator = np.random.default_rng(3)
    found = estimated(exam(generator, "t", 200, 0.02))
    (low, _, high), (score_low, _, score_high) = numbers(found.delta), numbers(found.score)
    assert high - low < (score_high - score_low) / 1.3


def test_the_gate_wants_more_than_the_tolerated_drop() -> None:
    base, policy = scores(*[1] * 50), scores(*[1] * 40, *[0] * 10)
    found = estimated(TaskScores("t", policy, base))
    assert found.dropped(0.02)
    assert not found.dropped(0.15)
    assert not estimated(TaskScores("t", base, base - 0.02)).dropped(0.02)
    exactly = estimated(TaskScores("t", base - 0.02, base))
    assert not exactly.dropped(0.02), "rounding is no regression"


def test_a_seed_fixes_the_intervals() -> None:
    taken = exam(np.random.default_rng(5), "t", 60, 0.0)
    assert estimated(taken, seed=1) == estimated(taken, seed=1)
    assert estimated(taken, seed=1) != estimated(taken, seed=2)


@pytest.mark.slow
def test_each_end_of_the_interval_errs_about_as_rarely_as_it_says() -> None:
    generator, drop, trials = np.random.default_rng(7), 0.03, 400
    below = above = 0
    for trial in range(trials):
        found = estimated(*(exam(generator, name, 64, drop) for name in "ab"), confidence=0.9, seed=trial)
        low, _, high = numbers(found.delta)
        below += high < -drop
        above += low > -drop
    for misses in (below, above):
        assert 0.04 <= misses / trials <= 0.16  # 10 %, give or take four standard errors


@pytest.mark.slow
@pytest.mark.parametrize(("drop", "most"), [(0.0, 0.02), (0.02, 0.09)])
def test_false_alarms_of_the_gate(drop: float, most: float) -> None:
    """Without a drop next to none; with one that is just tolerated, 5 %, give or take three standard errors."""
    generator, trials = np.random.default_rng(13), 400
    alarms = sum(
        estimated(*(exam(generator, name, 64, drop) for name in "ab"), seed=trial).dropped(0.02)
        for trial in range(trials)
    )
    assert alarms / trials <= most


def test_a_real_loss_is_found() -> None:
    generator, trials = np.random.default_rng(17), 100
    alarms = sum(
        estimated(*(exam(generator, name, 64, 0.1) for name in "ab"), seed=trial).dropped(0.02)
        for trial in range(trials)
    )
    assert alarms / trials >= 0.8


def test_the_numbers_that_decide_come_first_and_single_tasks_last() -> None:
    generator = np.random.default_rng(0)
    tasks = [exam(generator, name, 40, 0.0) for name in ("ifeval", "dynalign_choices")]
    names = [metric.name for metric in summarise(tasks, CapabilitySettings(), seed=0)]
    assert names[:7] == [
        *("capability", "capability_low", "capability_high"),
        *("capability_delta", "capability_delta_low", "capability_delta_high", "capability_regressed"),
    ]
    assert names[-4:] == [
        f"{kind}/{task}" for kind in ("task", "task_delta") for task in ("ifeval", "dynalign_choices")
    ]
