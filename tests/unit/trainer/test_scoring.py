"""From next-token distributions to rewards: expectation, aggregates, penalties."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.objective import Aggregate
from dynalign_contract.settings import Penalties
from dynalign_trainer.models.choices import expected_digit
from dynalign_trainer.scoring.penalties import final_reward, find_penalties, is_refusal
from dynalign_trainer.scoring.scores import aggregate, standard_error

NAN = math.nan
SCORES = st.lists(st.floats(0, 9), min_size=1, max_size=6)
LOGITS = st.lists(st.floats(-60, 0), min_size=10, max_size=10)


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p > 0 else -math.inf for p in probabilities]


@pytest.mark.parametrize(
    ("probabilities", "expected", "mass"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 7.0, 1.0),
        ([0.1] * 10, 4.5, 1.0),
        ([0.05, 0, 0, 0, 0, 0, 0, 0, 0, 0.15], 6.75, 0.2),
        ([0, 1e-30, 0, 2e-30, 0, 0, 0, 0, 0, 0], 7 / 3, 3e-30),
    ],
)
def test_the_expected_digit_is_taken_among_the_digits_only(
    probabilities: list[float], expected: float, mass: float
) -> None:
    found = expected_digit(logs(*probabilities))
    assert found == pytest.approx((expected, mass), rel=1e-9)


@pytest.mark.parametrize("values", [[-math.inf] * 10, [math.nan] + [-3.0] * 9, [-3.0] * 9 + [math.nan]])
def test_digits_without_a_distribution_have_no_score(values: list[float]) -> None:
    score, mass = expected_digit(values)
    assert math.isnan(score)
    assert mass == 0.0


@given(LOGITS, st.floats(-300, 0))
def test_the_expected_digit_ignores_how_much_mass_the_digits_have(logits: list[float], shift: float) -> None:
    score, _ = expected_digit(logits)
    shifted, mass = expected_digit([value + shift for value in logits])
    assert 0 <= score <= 9
    assert shifted == pytest.approx(score, abs=1e-6)
    assert 0 <= mass <= 1


@pytest.mark.parametrize(
    ("how", "expected"),
    [(Aggregate.GEOMETRIC_MEAN, math.sqrt(4 * 9) / 9), (Aggregate.MEAN, 6.5 / 9), (Aggregate.MINIMUM, 4 / 9)],
)
def test_aggregates(how: Aggregate, expected: float) -> None:
    assert aggregate([4, 9], how) == pytest.approx(expected)


@given(SCORES)
def test_aggregates_are_ordered_and_stay_in_the_unit_interval(scores: list[float]) -> None:
    low, middle, high = (
        aggregate(scores, how) for how in (Aggregate.MINIMUM, Aggregate.GEOMETRIC_MEAN, Aggregate.MEAN)
    )
    assert -1e-12 <= low <= middle + 1e-9 <= high + 2e-9 <= 1 + 3e-9


@given(SCORES, st.sampled_from(Aggregate), st.data())
def test_one_missing_aspect_leaves_no_reward(scores: list[float], how: Aggregate, data: st.DataObject) -> None:
    scores[data.draw(st.integers(0, len(scores) - 1))] = math.nan
    assert math.isnan(aggregate(scores, how))


def test_no_aspect_can_be_bought_with_another() -> None:
    assert aggregate([9, 9, 9, 0], Aggregate.GEOMETRIC_MEAN) == 0


@pytest.mark.parametrize(
    ("votes", "how", "expected"),
    [
        ([[0, 9]], Aggregate.MEAN, 0.5),  # rewards 0 and 1: deviation sqrt(1/2), over sqrt(2)
        ([[0, 9], [9, 0]], Aggregate.MEAN, 0.0),
        ([[3, 6, 9], [3, 6, 9]], Aggregate.MINIMUM, 1 / 3 / math.sqrt(3)),
        ([[1, 4], [4, 9]], Aggregate.GEOMETRIC_MEAN, (6 - 2) / 9 / 2),
        ([[3, NAN, 6], [3, 9, 6]], Aggregate.MEAN, 1 / 3 / 2),  # the second vote is not whole
    ],
)
def test_the_votes_spread_goes_through_the_aggregate(votes: list[list[float]], how: Aggregate, expected: float) -> None:
    assert standard_error(votes, how) == pytest.approx(expected)


@pytest.mark.parametrize("votes", [[[4.0], [5.0]], [[], []], [[4.0, 5.0], []], [[4.0, NAN], [NAN, 5.0]]])
def test_fewer_than_two_whole_votes_have_no_standard_error(votes: list[list[float]]) -> None:
    assert math.isnan(standard_error(votes, Aggregate.GEOMETRIC_MEAN))


@pytest.mark.slow
@given(st.sampled_from(Aggregate), st.integers(0, 99))
def test_the_standard_error_is_the_deviation_of_rewards_judged_again_and_again(how: Aggregate, seed: int) -> None:
    draw = random.Random(seed)
    rewards, errors = [], []
    for _ in range(300):
        votes = [[draw.gauss(mean, 0.4) for _ in range(8)] for mean in (4.0, 5.0, 7.0)]
        rewards.append(aggregate([statistics.fmean(aspect) for aspect in votes], how))
        errors.append(standard_error(votes, how))
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(rewards), rel=0.2)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with this request.",
        "I cannot provide instructions for this.",
        "As an AI language model, I am unable to answer.",
        "Sorry, I won't do that.",
        "Unfortunately I am not able to discuss it.",
        '"I must decline to answer."',
    ],
)
def test_refusals_are_recognised(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry to hear that. Here is what you can do.",
        "You can help your neighbour. If they say I can't help, ask again.",
        "As an AI teacher, start with examples.",
        "I can help with that.",
        "Tell them: I won't continue like this.",
        "I cannot stress enough how important sleep is.",
    ],
)
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("length", "truncated", "expected"),
    [
        (10, False, {}),
        (80, False, {}),
        (90, False, {"overlong": 0.2}),
        (100, True, {"truncated": 0.3, "overlong": 0.4}),
    ],
)
def test_penalties_by_name(length: int, truncated: bool, expected: dict[str, float]) -> None:
    settings = Penalties(truncated=0.3, refusal=0.5, overlong=0.4, overlong_from=0.8)
    found = find_penalties("Fine.", length=length, truncated=truncated, settings=settings, max_tokens=100)
    assert found == pytest.approx(expected)
    assert final_reward(0.5, found) == pytest.approx(0.5 - sum(expected.values()))


def test_penalties_are_off_by_default_and_a_missing_reward_stays_missing() -> None:
    text = "I'm sorry, I can't help."
    assert find_penalties(text, length=100, truncated=True, settings=Penalties(), max_tokens=100) == {}
    found = find_penalties(text, length=1, truncated=False, settings=Penalties(refusal=0.25), max_tokens=100)
    assert found == {"refusal": 0.25}
    assert math.isnan(final_reward(math.nan, found))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Hay que llamar al médico y descansar unos días en casa.", {"language_switch": 0.5}),
        ("You should call a doctor and rest at home for a few days.", {}),
        ("Sí, claro.", {}),  # too short to tell
    ],
)
def test_an_answer_in_another_language_than_its_prompt_loses_something(answer: str, found: dict[str, float]) -> None:
    settings, prompt = Penalties(language_switch=0.5), "My back has hurt since yesterday. What should I do about it?"
    assert find_penalties(answer, prompt=prompt, length=1, truncated=False, settings=settings, max_tokens=9) == found
    assert find_penalties(answer, prompt=prompt, length=1, truncated=False, settings=Penalties(), max_tokens=9) == {}
