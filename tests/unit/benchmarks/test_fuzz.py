"""A small share of `python -m benchmarks.fuzz`, the same inputs each time; and that it would find something."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.fuzz import __main__ as command
from benchmarks.fuzz.documents import DOCUMENTS, check_problems, odd_value
from benchmarks.fuzz.states import STATES
from benchmarks.fuzz.trials import Fuzzer, Trial, kinds_of, try_inputs
from benchmarks.fuzz.values import ODD_VALUES
from dynalign_operator.runfile.problems import Problem

SHARES = [(DOCUMENTS, 300), (STATES, 300)]


@pytest.mark.parametrize(("fuzzer", "count"), SHARES, ids=[fuzzer.name for fuzzer, _ in SHARES])
@pytest.mark.slow
def test_no_promise_is_broken(fuzzer: Fuzzer, count: int) -> None:
    outcomes = try_inputs(fuzzer, count, seed=0)
    assert [failure.text for _, failure in kinds_of(outcomes.failures)] == []
    assert sum(outcomes.counts.values()) == count
    assert min(outcomes.counts.values()) > 0
    assert len(outcomes.counts) > 1, "every input ended in the same way"


def test_an_input_leaves_nothing_to_the_next_one() -> None:
    """What is changed in one document is not a value that all others share."""
    rng = random.Random(0)
    shared = {id(value) for value in ODD_VALUES if isinstance(value, dict | list)}
    drawn = [odd_value(rng) for _ in range(2000)]
    assert [value for value in drawn if value in ({}, [])], "none of them was drawn"
    assert not shared & set(map(id, drawn))


@pytest.mark.parametrize(
    "text",
    ['is "{}"; write a mapping.', "spec.seed \x1b[31m", "spec.seed Input should be a valid integer"],
    ids=["names no field", "colours a terminal", "speaks of a library"],
)
def test_a_refusal_that_does_not_help_is_a_failure(text: str) -> None:
    problem = Problem("x")
    object.__setattr__(problem, "text", text)
    with pytest.raises(AssertionError):
        check_problems((problem,))


def test_a_failure_says_how_to_have_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def broken() -> Iterator[Trial]:
        def trial(rng: random.Random) -> str:
            if rng.random() < 0.3:
                raise KeyError("lost")
            return "fine"

        yield trial

    fuzzer = Fuzzer("documents", broken)
    found = try_inputs(fuzzer, 40, seed=5)
    assert 0 < len(found.failures) < 40
    alone = try_inputs(fuzzer, 1, seed=found.failures[0].seed)
    assert [failure.text for failure in alone.failures] == [found.failures[0].text]
    monkeypatch.setattr(command, "FUZZERS", (fuzzer,))
    assert command.main(["--documents", "40", "--seed", "5"]) == 1
    assert f"python -m benchmarks.fuzz --documents 1 --seed {found.failures[0].seed}" in capsys.readouterr().err
    assert command.main(["--documents", "1", "--seed", "random"]) in (0, 1)
