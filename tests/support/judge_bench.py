"""A judge stage without an engine: its judge gives every answer the same reward."""

import math
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_contract.config import JudgeParams, Policy
from dynalign_contract.records import JudgementRow
from dynalign_contract.settings import CanarySettings, JudgingSettings, RewardSettings
from dynalign_trainer.judge import stage
from dynalign_trainer.judge.judges import Judges
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.context import StageOutput
from lab.tiny_qwen3 import write_tiny_qwen3
from support.panel_bench import PanelBench, rollout_rows
from support.scripted_model import ScriptedModel

JUDGE = 0.5
"""Reward of every answer by the judge: a digit of 4.5."""
ANSWERS: Final = {("p0", 0): "It is 7.", ("p0", 1): "It is 8.", ("p1", 0): "It is 7.", ("p1", 1): "Who knows?"}
COLUMNS: Final[dict[str, dict[str, str]]] = {"p0": {"answer": "7"}, "p1": {}}


def rollouts(**more: Any) -> list[dict[str, Any]]:
    """Two candidates for each of two prompts, of which one has a column."""
    return rollout_rows(ANSWERS, COLUMNS, **more)


def tiny_window(folder: Path) -> Window:
    """The window of a tiny model, whose folder is written."""
    return Window(ChatTemplate(load_tokenizer(write_tiny_qwen3(folder))), 4096)


class JudgeBench:
    """A judge stage whose judge gives every answer the same score."""

    def __init__(self, root: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bench = PanelBench(root)
        model = ScriptedModel(digit=lambda question: 9 * JUDGE, version="base", window=window)
        monkeypatch.setattr(stage, "open_judges", lambda context: Judges(configured=model, base=model))

    def judge(
        self, *rewards: dict[str, Any], rows: list[dict[str, Any]] | None = None, **judging: Any
    ) -> StageOutput[JudgeParams]:
        """Run the stage with these rewards beside the judge."""
        settings = JudgingSettings(canaries=CanarySettings(prompts=0), **judging)
        verifiers = tuple(RewardSettings.model_validate(reward) for reward in rewards)
        return self._bench.judge(settings, rows or rollouts(), judge=Policy(), rewards=verifiers)

    @property
    def warnings(self) -> list[str]:
        return self._bench.warnings

    def folder(self) -> Path:
        return self._bench.folder()

    def rows(self) -> list[JudgementRow]:
        return self._bench.rows()


def numbers(values: list[float]) -> list[float | None]:
    """Rounded, None for NaN, so that they can be compared."""
    return [None if math.isnan(value) else round(value, 5) for value in values]
