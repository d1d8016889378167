"""The check of a machine's GPU, run with tiny sizes on the CPU: its programs, verdicts, limits and report."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.gpu_check import main, measure, run_here
from benchmarks.gpu_checks.finding import CHECKS, Check, Device, Finding, Outcome, Place, SkippedError


@pytest.mark.slow
def test_on_a_cpu_every_check_that_has_a_meaning_there_passes_and_the_others_say_why_not(tmp_path: Path) -> None:
    report = tmp_path / "folder" / "report.jsonl"
    code = main(["--device", "cpu", "--report", str(report)])
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["check"] for line in lines] == [check.name for check in CHECKS]
    assert {line["check"]: line["reason"] for line in lines if line["outcome"] != Outcome.PASSED} == {
        "forking": "it is about the CUDA driver's state after a fork, which a CPU does not have"
    }
    assert {line["outcome"] for line in lines} == {Outcome.PASSED, Outcome.SKIPPED}
    assert all(line["values"] for line in lines if line["outcome"] == Outcome.PASSED)
    assert code == 0


@pytest.mark.parametrize(
    ("found", "outcome", "reason"),
    [
        (Finding({"error": 0.5}), Outcome.PASSED, ""),
        (Finding({"error": 0.5}, ("0.5 is too much", "so is 0.4")), Outcome.FAILED, "0.5 is too much; so is 0.4"),
        (SkippedError("no driver"), Outcome.SKIPPED, "no driver"),
        (RuntimeError("CUDA error: out of luck"), Outcome.FAILED, "RuntimeError: CUDA error: out of luck"),
    ],
)
def test_a_check_ends_with_its_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Finding | Exception, outcome: Outcome, reason: str
) -> None:
    def check(place: Place) -> Finding:
        if isinstance(found, Exception):
            raise found
        return found

    planted = ModuleType("planted")
    planted.check = check  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.gpu_checks.planted", planted)
    run_here("planted", Place(Device.CPU, tmp_path), tmp_path / "result.json")
    written: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
    assert (written["outcome"], written["reason"]) == (outcome, reason)


def test_a_check_that_takes_too_long_has_failed_and_one_whose_turn_never_came_is_skipped() -> None:
    late = measure(CHECKS[0], Device.CPU, 0.01)
    assert (late.outcome, late.reason) == (Outcome.FAILED, "it took more than 0 s")
    never = measure(CHECKS[0], Device.CPU, -1)
    assert (never.outcome, never.reason) == (Outcome.SKIPPED, "the time for all checks is over")


def test_one_failed_check_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.gpu_check.CHECKS", (Check("no_such_module", "is it there", 60),))
    report = tmp_path / "report.jsonl"
    assert main(["--device", "cpu", "--report", str(report), "--json"]) == 1
    assert "no_such_module" in json.loads(report.read_text())["reason"]


def test_without_a_gpu_it_says_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The environment of the tests has vLLM's build for CPUs, with which no stage sees a GPU."""
    assert main(["--report", str(tmp_path / "report.jsonl")]) == 1
    assert "Write EXTRA=gpu after `make`" in capsys.readouterr().err


def test_an_unknown_check_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "attention,heat"])
    assert "there is no check 'heat'" in capsys.readouterr().err
