"""Rewards from packages of the image: functions that distributions register as entry points."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError, UnfitError
from dynalign_contract.metrics import JudgeMetrics
from dynalign_trainer.models.window import Window
from dynalign_trainer.verifiers.entry_points import find_installed_reward
from support.judge_bench import JUDGE, JudgeBench, numbers, tiny_window
from support.reward_packages import install_rewards

SEVEN = """
asked = []

def seven(request):
    asked.append(request)
    return [1 if "7" in item["answer"] else 0 for item in request["items"]]
"""
OWN = {"name": "own", "type": "Python", "entryPoint": "seven"}


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return tiny_window(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def bench(tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> JudgeBench:
    return JudgeBench(tmp_path, window, monkeypatch)


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.endswith("_rewards"):
            del sys.modules[name]


def values_of(bench: JudgeBench) -> list[float | None]:
    return numbers([row["verifiers"]["own"] for row in bench.rows()])


def test_a_function_of_the_image_rewards_answers_and_its_package_is_recorded(
    bench: JudgeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_rewards(tmp_path, monkeypatch, SEVEN, seven="seven")
    output = bench.judge({**OWN, "columns": ["answer"], "batchSize": 1})
    assert values_of(bench) == [1, 0, 1, 0]
    assert numbers([row["reward"] for row in bench.rows()])[:2] == [(JUDGE + 1) / 2, JUDGE / 2]
    assert output.metrics[JudgeMetrics.verifier_reward.of("own")] == 0.5
    assert output.producers == {"own-rewards": "1.2.3"}
    asked = sys.modules["own_rewards"].asked
    assert [(request["reward"], len(request["items"])) for request in asked] == [("own", 1)] * 4
    assert asked[0]["items"][0] == {
        "group": "p0",
        "candidate": 0,
        "messages": [{"role": "user", "content": "How much is p0?"}],
        "answer": "It is 7.",
        "columns": {"answer": "7"},
    }


FAILURES: dict[str, tuple[str, str]] = {
    "raises": ("raise ValueError('no GPU')", "seven of own-rewards raised ValueError: no GPU"),
    "too few": ("return [1]", "seven of own-rewards returned 1 values for 2 items"),
    "nothing": ("return None", "raised TypeError"),
    "texts": ("return ['1', '1']", "a value is str, and not a number or None"),
    "truths": ("return [True, False]", "a value is bool, and not a number or None"),
    "none": ("return [None, None]", "it answered null"),
    "out of range": ("return [1.5, float('nan')]", "values outside its range of 0 to 1"),
}


@pytest.mark.parametrize(("body", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_nan_counted_and_told_and_never_0(
    bench: JudgeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    install_rewards(tmp_path, monkeypatch, f"def seven(request):\n    {body}\n", seven="seven")
    output = bench.judge(OWN, gates={"max_failed_share": 1.0})
    assert values_of(bench) == [None] * 4
    assert numbers([row["reward"] for row in bench.rows()]) == [None] * 4
    assert output.metrics[JudgeMetrics.verifier_failed_share.of("own")] == 1
    assert words in bench.warnings[0]
    with pytest.raises(UnfitError, match=r"own left answers undecided \(4\): "):
        _again(bench).judge(OWN, gates={"max_failed_share": 0.9})


def _again(bench: JudgeBench) -> JudgeBench:
    for part in bench.folder().glob("part-*"):
        part.unlink()
    return bench


def test_numbers_of_other_libraries_are_numbers(
    bench: JudgeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import numpy\ndef seven(request):\n    return numpy.full(len(request['items']), 0.25, dtype='float32')\n"
    install_rewards(tmp_path, monkeypatch, code, seven="seven")
    bench.judge(OWN)
    assert values_of(bench) == [0.25] * 4


def test_what_a_function_changes_in_its_request_is_its_own_affair(
    bench: JudgeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def seven(request):\n    request['items'].pop()\n    return [0.5, 0.5]\n"
    install_rewards(tmp_path, monkeypatch, code, seven="seven")
    bench.judge(OWN)
    assert values_of(bench) == [0.5] * 4


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "another name": (
        {"eight": "seven"},
        r"no package in this image registers seven .*; registered are: eight\. Install",
    ),
    "another version": (
        {"seven": "seven", "group": "dynalign.rewards.v2"},
        "no package in this image registers seven under dynalign.rewards.v1; registered are: none",
    ),
    "no such function": (
        {"seven": "nine"},
        r"own_rewards:nine of own-rewards 1\.2\.3 cannot be loaded \(AttributeError",
    ),
    "no function": ({"seven": "asked"}, "own_rewards:asked of own-rewards 1.2.3 is list, and not a function"),
}


@pytest.mark.parametrize(("package", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_an_entry_point_that_cannot_be_used_is_refused_before_any_work(
    bench: JudgeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: dict[str, Any], words: str
) -> None:
    install_rewards(tmp_path, monkeypatch, SEVEN, **package)
    with pytest.raises(BadConfigError, match=r"^rewards\[0\]\.entryPoint: .*" + words):
        bench.judge(OWN)


def test_a_module_that_fails_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_rewards(tmp_path, monkeypatch, "import no_such_library", seven="seven")
    with pytest.raises(BadConfigError, match=r"cannot be loaded \(ModuleNotFoundError: .*no_such_library"):
        find_installed_reward("seven", "rewards[0].entryPoint")


def test_two_packages_with_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_rewards(tmp_path, monkeypatch, SEVEN, seven="seven")
    install_rewards(tmp_path, monkeypatch, SEVEN, distribution="other-rewards", seven="seven")
    with pytest.raises(BadConfigError, match=r"several packages register seven .*\(other-rewards, own-rewards\)"):
        find_installed_reward("seven", "rewards[0].entryPoint")
