"""A value with its interval, as text and against a limit."""

import pytest

from dynalign_contract.estimate import Estimate

RATE = Estimate(value=0.5, low=0.25, high=0.75)


@pytest.mark.parametrize(
    ("estimate", "arguments", "text"),
    [
        (RATE, (), "0.500 (0.250 to 0.750)"),
        (RATE, (".2f", "-"), "0.50 (0.25-0.75)"),
        (Estimate(value=-0.5, low=-0.75, high=0.25), ("+.2f",), "-0.50 (-0.75 to +0.25)"),
        (Estimate(value=0.5), (), "0.500"),
        (Estimate(value=0.5, low=0.25), (), "0.500"),
    ],
)
def test_text(estimate: Estimate, arguments: tuple[str, ...], text: str) -> None:
    assert estimate.text(*arguments) == text


def test_only_a_whole_interval_is_below_a_limit() -> None:
    assert RATE.is_below(0.8)
    assert not RATE.is_below(0.75)
    assert not Estimate(value=0.1).is_below(0.8)


def test_numbers_that_json_cannot_carry_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            Estimate(value=value)
