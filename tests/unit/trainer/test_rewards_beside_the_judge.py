"""Verifiers in the judge stage: their column, their metrics, and the reward that trains."""

from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import UnfitError
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.settings import JudgeGates
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.generate import sampling as generate
from dynalign_trainer.models.sampler import Sample
from dynalign_trainer.models.thoughts import Written
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.rows import supplied_row
from support.judge_bench import JUDGE, JudgeBench, numbers, rollouts, tiny_window

MATCH = {"name": "answer", "type": "Match", "column": "answer", "comparison": "Numeric", "weight": 3}
DIGIT = {"name": "digit", "type": "Regex", "pattern": r"\d", "range": {"low": -1}}


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return tiny_window(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def bench(tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> JudgeBench:
    return JudgeBench(tmp_path, window, monkeypatch)


def test_the_reward_is_the_weighted_mean_and_no_reward_without_a_verdict(bench: JudgeBench) -> None:
    output = bench.judge(MATCH, DIGIT)
    rows = bench.rows()
    assert numbers([row["verifiers"]["answer"] for row in rows]) == [1, 0, None, None]
    assert numbers([row["verifiers"]["digit"] for row in rows]) == [1, 1, 1, -1]
    assert numbers([row["raw_reward"] for row in rows]) == [JUDGE] * 4
    assert numbers([row["reward"] for row in rows]) == [(JUDGE + 3 + 1) / 5, (JUDGE + 0 + 1) / 5, None, None]
    metrics = output.metrics
    assert metrics[JudgeMetrics.verifier_reward.of("answer")] == 0.5
    assert metrics[JudgeMetrics.verifier_failed_share.of("answer")] == 0.5
    assert metrics[JudgeMetrics.verifier_reward.of("digit")] == 0.5
    assert metrics[JudgeMetrics.verifier_failed_share.of("digit")] == 0
    assert metrics[JudgeMetrics.failed_share] == 0.5
    assert metrics[JudgeMetrics.scored] == 2


def test_a_weight_of_0_only_measures(bench: JudgeBench) -> None:
    bench.judge({**MATCH, "weight": 0}, DIGIT, weight=0)
    rows = bench.rows()
    assert numbers([row["verifiers"]["answer"] for row in rows]) == [1, 0, None, None]
    assert numbers([row["reward"] for row in rows]) == [1, 1, 1, -1]


def test_penalties_are_taken_off_the_mean(bench: JudgeBench) -> None:
    rows = rollouts(finish_reason="length")
    bench.judge(DIGIT, rows=rows, penalties={"truncated": 0.25})
    assert numbers([row["reward"] for row in bench.rows()])[0] == (JUDGE + 1) / 2 - 0.25


def test_without_verifiers_the_rows_are_as_they_were(bench: JudgeBench) -> None:
    output = bench.judge()
    assert all("verifiers" not in row and row["reward"] == row["raw_reward"] for row in bench.rows())
    assert not [metric for metric in output.metrics if metric.name.startswith("verifier")]


def test_a_thought_is_not_verified(bench: JudgeBench) -> None:
    rows = rollouts(thought="2 + 5", thought_tokens=1)
    bench.judge(DIGIT, {"name": "one-token", "type": "Length", "max": 1}, rows=rows)
    assert [row["verifiers"]["digit"] for row in bench.rows()] == [1, 1, 1, -1]
    assert [row["verifiers"]["one-token"] for row in bench.rows()] == [1] * 4


@pytest.mark.parametrize("weight", [1, 0])
def test_a_verifier_that_counts_and_decides_too_little_stops_the_run(bench: JudgeBench, weight: int) -> None:
    gates = JudgeGates(max_failed_share=0.4)
    if weight:
        with pytest.raises(UnfitError, match=r"could not decide so many answers: answer 50\.0%"):
            bench.judge({**MATCH, "weight": weight}, gates=gates)
    else:
        bench.judge({**MATCH, "weight": weight}, gates=gates)
        assert numbers([row["reward"] for row in bench.rows()]) == [JUDGE] * 4


def test_with_continue_it_warns(bench: JudgeBench) -> None:
    bench.judge(MATCH, gates={"max_failed_share": 0.4, "on_unfit": "Continue"})
    assert ["could not decide" in warning for warning in bench.warnings] == [True]


@pytest.mark.parametrize("columns", [{}, {"columns": {"answer": "7"}}])
def test_columns_travel_from_a_prompt_to_its_candidates(columns: dict[str, Any]) -> None:
    messages: list[Message] = [{"role": "user", "content": "How much is 3 + 4?"}]
    prompt: Any = {**supplied_row("p0", messages), **columns}
    written = Written(Sample((1,), (0.0,), "stop", "7"), None)
    row = generate.rollout_row(prompt, [1], 0, written, "base")
    assert {name: value for name, value in row.items() if name == "columns"} == columns
