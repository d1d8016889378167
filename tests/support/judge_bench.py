"""A judge stage without an engine: its judge gives every answer the same reward."""

import math
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.layout import RunLayout
from dynalign_contract.objective import Aspect, builtin_objective
from dynalign_contract.records import JUDGEMENT, ROLLOUT, JudgementRow, read_rows
from dynalign_contract.settings import CanarySettings, JudgingSettings, RewardSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.judge import stage
from dynalign_trainer.judge.judges import Judges
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.window import Window
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
ANSWERS: Final = {("p0", 0): "It is 7.", ("p0", 1): "It is 8.", ("p1", 0): "It is 7.", ("p1", 1): "Who knows?"}
COLUMNS: Final[dict[str, dict[str, str]]] = {"p0": {"answer": "7"}, "p1": {}}


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


def tiny_window(folder: Path) -> Window:
    """The window of a tiny model, whose folder is written."""
    return Window(ChatTemplate(load_tokenizer(write_tiny_qwen3(folder))), 4096)


class JudgeBench:
    """A judge stage whose judge gives every answer the same score."""

    def __init__(self, root: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._window, self._monkeypatch = root, window, monkeypatch
        self.warnings: list[str] = []

    def judge(
        self, *rewards: dict[str, Any], rows: list[dict[str, Any]] | None = None, **judging: Any
    ) -> StageOutput[JudgeParams]:
        if not (self.root / "rollouts").exists():
            write_artifact(self.root, "rollouts", Stage.GENERATE, rows or rollouts(), schema=ROLLOUT)
        (self.root / "judgements").mkdir(exist_ok=True)
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


def numbers(values: list[float]) -> list[float | None]:
    """Rounded, None for NaN, so that they can be compared."""
    return [None if math.isnan(value) else round(value, 5) for value in values]
