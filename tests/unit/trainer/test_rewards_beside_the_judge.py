"""Verifiers in the judge stage: their column, their metrics, and the reward that trains."""

import math
import threading
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.errors import UnfitError
from dynalign_contract.layout import RunLayout
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.objective import Aspect, builtin_objective
from dynalign_contract.records import JUDGEMENT, ROLLOUT, JudgementRow, read_rows
from dynalign_contract.settings import CanarySettings, JudgeGates, JudgingSettings, RewardSettings
from dynalign_contract.stages import Stage
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.generate import stage as generate
from dynalign_trainer.judge import stage
from dynalign_trainer.judge.judges import Judges
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.engine import Sample
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.thoughts import Written
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.rows import supplied_row
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.telemetry import Telemetry
from lab.tiny_qwen3 import write_tiny_qwen3
from support.scripted_model import ScriptedModel
from support.training_data import write_artifact

OBJECTIVE = builtin_objective("collective-agency").model_copy(
    update={"aspects": (Aspect(id="care", title="Care", definition="d"),)}
)
JUDGE = 0.5
"""Reward of every answer by the judge: a digit of 4.5."""
ANSWERS = {("p0", 0): "It is 7.", ("p0", 1): "It is 8.", ("p1", 0): "It is 7.", ("p1", 1): "Who knows?"}
COLUMNS = {"p0": {"answer": "7"}, "p1": {}}
MATCH = {"name": "answer", "type": "Match", "column": "answer", "comparison": "Numeric", "weight": 3}
DIGIT = {"name": "digit", "type": "Regex", "pattern": r"\d", "range": {"low": -1}}


def rollouts(**more: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt,
            "candidate": candidate,
            "prompt_ids": [1],
            "completion_ids": [2, 3],
            "logprobs": [0.0, 0.0],
            "finish_reason": "stop",
            "policy": "base",
            "text": text,
            "messages": [{"role": "user", "content": f"How much is {prompt}?"}],
            "columns": COLUMNS[prompt],
            **more,
        }
        for (prompt, candidate), text in ANSWERS.items()
    ]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return Window(ChatTemplate(load_tokenizer(write_tiny_qwen3(tmp_path_factory.mktemp("tiny")))), 4096)


class Bench:
    """A judge stage whose judge gives every answer the same score."""

    def __init__(self, root: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._window, self._monkeypatch = root, window, monkeypatch
        self.warnings: list[str] = []

    def judge(
        self, *rewards: dict[str, Any], rows: list[dict[str, Any]] | None = None, **judging: Any
    ) -> StageOutput[JudgeParams]:
        write_artifact(self.root, "rollouts", Stage.GENERATE, rows or rollouts(), schema=ROLLOUT)
        (self.root / "judgements").mkdir()
        params = JudgeParams(
            objective=OBJECTIVE,
            judging=JudgingSettings(canaries=CanarySettings(prompts=0), **judging),
            judge=Policy(),
            rewards=tuple(RewardSettings.model_validate(reward) for reward in rewards),
            max_tokens=8,
            prompts_per_part=1,
        )
        context = StageContext(
            config=StageConfig(run="r", iteration=0, params=params),
            params=params,
            layout=RunLayout(self.root),
            folder=self.root / "judgements",
            shard=0,
            inputs={"rollouts": (self.root / "rollouts",)},
            telemetry=Telemetry(),
            stopping=threading.Event(),
        )
        model = ScriptedModel(digit=lambda question: 9 * JUDGE, version="base", window=self._window)
        self._monkeypatch.setattr(stage, "open_judges", lambda context: Judges(configured=model, base=model))
        output = stage.run(context)
        self.warnings = list(context.warnings)
        return output

    def rows(self) -> list[JudgementRow]:
        parts = sorted((self.root / "judgements").glob("part-*.parquet"))
        return [row for part in parts for row in read_rows(part, JUDGEMENT)]


@pytest.fixture
def bench(tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, window, monkeypatch)


def numbers(values: list[float]) -> list[float | None]:
    """Rounded, None for NaN, so that they can be compared."""
    return [None if math.isnan(value) else round(value, 5) for value in values]


def test_the_reward_is_the_weighted_mean_and_no_reward_without_a_verdict(bench: Bench) -> None:
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


def test_a_weight_of_0_only_measures(bench: Bench) -> None:
    bench.judge({**MATCH, "weight": 0}, DIGIT, weight=0)
    rows = bench.rows()
    assert numbers([row["verifiers"]["answer"] for row in rows]) == [1, 0, None, None]
    assert numbers([row["reward"] for row in rows]) == [1, 1, 1, -1]


def test_penalties_are_taken_off_the_mean(bench: Bench) -> None:
    rows = rollouts(finish_reason="length")
    bench.judge(DIGIT, rows=rows, penalties={"truncated": 0.25})
    assert numbers([row["reward"] for row in bench.rows()])[0] == (JUDGE + 1) / 2 - 0.25


def test_without_verifiers_the_rows_are_as_they_were(bench: Bench) -> None:
    output = bench.judge()
    assert all("verifiers" not in row and row["reward"] == row["raw_reward"] for row in bench.rows())
    assert not [metric for metric in output.metrics if metric.name.startswith("verifier")]


def test_a_thought_is_not_verified(bench: Bench) -> None:
    rows = rollouts(thought="2 + 5", thought_tokens=1)
    bench.judge(DIGIT, {"name": "one-token", "type": "Length", "max": 1}, rows=rows)
    assert [row["verifiers"]["digit"] for row in bench.rows()] == [1, 1, 1, -1]
    assert [row["verifiers"]["one-token"] for row in bench.rows()] == [1] * 4


@pytest.mark.parametrize("weight", [1, 0])
def test_a_verifier_that_counts_and_decides_too_little_stops_the_run(bench: Bench, weight: int) -> None:
    gates = JudgeGates(max_failed_share=0.4)
    if weight:
        with pytest.raises(UnfitError, match=r"could not decide so many answers: answer 50\.0%"):
            bench.judge({**MATCH, "weight": weight}, gates=gates)
    else:
        bench.judge({**MATCH, "weight": weight}, gates=gates)
        assert numbers([row["reward"] for row in bench.rows()]) == [JUDGE] * 4


def test_with_continue_it_warns(bench: Bench) -> None:
    bench.judge(MATCH, gates={"max_failed_share": 0.4, "on_unfit": "Continue"})
    assert ["could not decide" in warning for warning in bench.warnings] == [True]


@pytest.mark.parametrize("columns", [{}, {"columns": {"answer": "7"}}])
def test_columns_travel_from_a_prompt_to_its_candidates(columns: dict[str, Any]) -> None:
    messages: list[Message] = [{"role": "user", "content": "How much is 3 + 4?"}]
    prompt: Any = {**supplied_row("p0", messages), **columns}
    written = Written(Sample((1,), (0.0,), "stop", "7"), None)
    row = generate._row(prompt, [1], 0, written, "base")
    assert {name: value for name, value in row.items() if name == "columns"} == columns
