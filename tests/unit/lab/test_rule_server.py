"""The honest judge from outside gives the rule's rewards."""

import os
import random
from pathlib import Path

import pytest

from dynalign_contract.endpoints import EndpointSettings
from dynalign_contract.settings import JudgeSettings, JudgingSettings, PanelJudge, judge_endpoint
from dynalign_trainer.endpoints.endpoint_model import open_model
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.window import Window
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from lab.rule_server import MODEL, serve_rule
from lab.testbed import load_testbed
from lab.testbed_language import draw_answer
from support.judging_data import draw_question, rule_objective


def test_its_rewards_are_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bed, objective, draw = load_testbed(), rule_objective(), random.Random(0)
    candidates = []
    for number in range(12):
        asked, view, topic = draw_question(objective, draw)
        answer = draw_answer(draw, view, topic) if number else ""
        candidates.append(Candidate(f"p{number}", [{"role": "user", "content": asked}], answer))
    window = Window(ChatTemplate(load_tokenizer(bed.model)), 512)
    with serve_rule(bed.rule) as url:
        settings = EndpointSettings(url=url, model=MODEL)
        judge = JudgeSettings(name="outside", judge=PanelJudge.ENDPOINT, endpoint=settings)
        model = open_model(judge_endpoint(1, judge), settings, {}, Journal(Path(os.devnull)), window)
        scores = PointwiseJudge(model, objective, JudgingSettings(), seed=lambda *salt: 7).score(candidates)
    worth = [bed.rule(candidate.text) for candidate in candidates]
    assert len(set(worth)) > 2
    assert [score.reward * 9 for score in scores] == pytest.approx(worth)
