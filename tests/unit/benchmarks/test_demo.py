"""What counts as a demo that worked: won with the whole interval, and nothing lost beyond it."""

import io

import pytest
from rich.console import Console

from benchmarks.demo import Outcome, outcome_table, read_outcome
from dynalign_contract.estimate import Estimate
from dynalign_operator.api.status import IterationStatus


def an_outcome(low: float, high: float, lost: Estimate | None = None) -> Outcome:
    rate = Estimate(value=(low + high) / 2, low=low, high=high)
    return Outcome(3, rate, None, lost, kl=0.5, seconds=300.0, cpu_seconds=400.0)


@pytest.mark.parametrize(
    ("low", "high", "lost", "passes"),
    [
        (0.56, 0.9, None, True),
        (0.5, 0.9, None, False),
        (0.2, 0.4, None, False),
        (0.56, 0.9, Estimate(value=-0.02, low=-0.05, high=0.01), True),
        (0.56, 0.9, Estimate(value=-0.02, low=-0.05, high=-0.01), False),
        (0.56, 0.9, Estimate(value=0.02, low=0.01, high=0.05), True),
    ],
)
def test_a_seed_passes_if_it_won_and_lost_nothing(low: float, high: float, lost: Estimate | None, passes: bool) -> None:
    assert an_outcome(low, high, lost).passes is passes


def test_every_seed_has_a_line() -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(outcome_table([an_outcome(0.56, 0.9), an_outcome(0.4, 0.6)]))
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if "(" in line]
    assert [line.strip("│ ").split()[-1] for line in lines] == ["yes", "no"]


def test_an_iteration_that_was_not_evaluated_has_no_outcome() -> None:
    assert read_outcome(0, IterationStatus(index=0), 1.0, 1.0) is None
