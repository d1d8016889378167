"""Useful time of a stage: spans count once, and what earlier attempts did for kept parts is reported apart."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from dynalign_trainer.runtime.useful_time import USEFUL_TIME_FILE, UsefulTime
from dynalign_trainer.train.job import StepReport, WorkerOutcome, WorkerResult
from dynalign_trainer.train.summary import count_useful_time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set themselves."""
    now = [100.0]
    monkeypatch.setattr("dynalign_trainer.runtime.useful_time.time.monotonic", lambda: now[0])
    return now


def test_nested_spans_count_once_and_the_first_one_ends_the_start(clock: list[float]) -> None:
    begun: list[float] = []
    useful = UsefulTime(on_first=lambda: begun.append(clock[0]))
    clock[0] = 103
    with useful.span():
        clock[0] = 105
        with useful.span():
            clock[0] = 108
        clock[0] = 109
    clock[0] = 120
    with contextlib.suppress(KeyError), useful.span():
        clock[0] = 121
        raise KeyError
    assert useful.seconds == 7
    assert begun[0] == 103


def test_what_was_saved_with_finished_parts_is_what_the_next_attempt_has_kept(tmp_path: Path) -> None:
    first, second, third = (UsefulTime(on_first=lambda: None) for _ in range(3))
    first.add(40)
    first.save(tmp_path)
    first.add(7)  # of a part that was not finished
    second.load(tmp_path)
    second.add(20)
    second.save(tmp_path)
    third.load(tmp_path)
    assert (second.preserved_seconds, third.preserved_seconds, third.seconds) == (40, 60, 0)


@pytest.mark.parametrize("text", ["", "abc", "nan", "-3", "inf", "1e999", "\0"])
def test_a_file_that_holds_no_time_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / USEFUL_TIME_FILE).write_text(text)
    useful = UsefulTime(on_first=lambda: None)
    useful.load(tmp_path)
    assert useful.preserved_seconds == 0


def a_step(number: int, seconds: float) -> StepReport:
    numbers: dict[str, Any] = dict.fromkeys(("loss", "kl", "entropy", "ratio_mean", "ratio_max", "clip_share"), 0.0)
    return StepReport(**numbers, step=number, steps=4, grad_norm=None, tokens=1, seconds=seconds)


def test_a_training_counts_its_own_steps_and_reports_those_before_its_checkpoint_apart() -> None:
    reports = [a_step(1, 10), a_step(2, 11), a_step(3, 12), a_step(4, 13)]
    result = WorkerResult(outcome=WorkerOutcome.TRAINED, reference_seconds=5)
    whole, resumed = UsefulTime(lambda: None), UsefulTime(lambda: None)
    count_useful_time(whole, result, reports, None)
    count_useful_time(resumed, result.model_copy(update={"reference_seconds": 0.0}), reports, Path("checkpoint-2"))
    assert (whole.seconds, whole.preserved_seconds) == (51, 0)
    assert (resumed.seconds, resumed.preserved_seconds) == (25, 21)
