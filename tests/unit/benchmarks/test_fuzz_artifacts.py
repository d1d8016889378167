"""The fuzzer of artifacts: a small share of its inputs, and that it would notice a reader that looks away."""

import secrets
from collections.abc import Callable

import pytest

from benchmarks.fuzz import artifacts
from benchmarks.fuzz.artifacts import ARTIFACTS
from benchmarks.fuzz.trials import try_inputs


@pytest.mark.parametrize("seed", [0, pytest.param(secrets.randbelow(2**31), id="random")])
def test_every_damage_of_an_artifact_is_found(seed: int) -> None:
    outcomes = try_inputs(ARTIFACTS, 150, seed)
    assert not outcomes.failures, "\n".join(f"{failure.text}\n{failure.command}" for failure in outcomes.failures)
    assert len(outcomes.counts) > 8
    assert outcomes.counts["whole"] < 30


@pytest.mark.parametrize(
    ("name", "blind"),
    [
        ("verify_artifact", lambda _root, _artifact: ()),
        ("find_checkpoint", lambda work: next(work.glob("checkpoint-*"))),
    ],
)
def test_a_reader_that_looks_away_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, blind: Callable[..., object]
) -> None:
    monkeypatch.setattr(artifacts, name, blind)
    outcomes = try_inputs(ARTIFACTS, 60, 0)
    assert outcomes.failures
    assert "was not found" in outcomes.failures[0].text
