"""Author, critic and both judges need a ChatModel and nothing else: an engine, an endpoint, or a script."""

import math
import os
import re
import threading
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointSettings
from dynalign_contract.layout import RunLayout
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.objective import Aspect, builtin_objective
from dynalign_contract.records import CANARY, JUDGEMENT, ROLLOUT, read_rows
from dynalign_contract.settings import CanarySettings, JudgingMethod, JudgingSettings
from dynalign_contract.stages import Stage
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.endpoints.endpoint_model import open_model
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.judge import stage
from dynalign_trainer.judge.judges import Judges
from dynalign_trainer.models.chat_model import ChatTurn, Completion
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pairwise import AnswerPair, PairwiseJudge
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from support.chat_server import Answer, completion, serve_chat
from support.scripted_model import ScriptedModel
from support.training_data import write_artifact

CARE, CRAFT = Aspect(id="care", title="Care", definition="d"), Aspect(id="craft", title="Craft", definition="d")
OBJECTIVE = builtin_objective("collective-agency").model_copy(update={"aspects": (CARE, CRAFT)})
CANDIDATES = [Candidate("p0", [{"role": "user", "content": "How?"}], text) for text in ("A good one.", "A poor one.")]


def shown(question: str) -> list[str]:
    """What stands between the delimiters of a question."""
    return re.findall(r"<<<[0-9a-f]{10}\n(.*?)\n[0-9a-f]{10}>>>", question, re.DOTALL)


def digit_of(question: str) -> float:
    return 8.0 if "good" in shown(question)[-1] else 2.0


def judge_by(model: ScriptedModel, **settings: Any) -> PointwiseJudge:
    return PointwiseJudge(model, OBJECTIVE, JudgingSettings(**settings), seed=lambda *salt: 7)


def test_a_score_that_failed_is_asked_for_again_with_a_longer_prefill() -> None:
    def digit(question: str) -> float:
        return digit_of(question) if "nothing but one digit" in question else math.nan

    model = ScriptedModel(digit=digit)
    good, poor = judge_by(model).score(CANDIDATES)
    assert (good.retries, [aspect.score for aspect in good.aspects], [aspect.score for aspect in poor.aspects]) == (
        2,
        [8.0, 8.0],
        [2.0, 2.0],
    )
    first, second = model.turns[:4], model.turns[4:]
    assert all(again.prefill.endswith(once.prefill) for once, again in zip(first, second, strict=True))
    assert all(len(again.prefill) > len(once.prefill) for once, again in zip(first, second, strict=True))


def test_a_model_that_takes_no_prefill_insists_by_itself() -> None:
    model = ScriptedModel(digit=lambda question: math.nan, takes_prefill=False)
    scores = judge_by(model).score(CANDIDATES)
    assert len(model.turns) == 4
    assert [score.retries for score in scores] == [0, 0]
    assert all(math.isnan(score.reward) for score in scores)


def test_votes_go_on_from_the_very_tokens_of_the_reasons() -> None:
    def reasons(turn: ChatTurn, number: int) -> Completion:
        return Completion("", "Because.", finished=True, token_ids=(number, 99))

    model = ScriptedModel(text=reasons, digit=digit_of)
    good, poor = judge_by(model, method=JudgingMethod.VOTES, votes=3).score(CANDIDATES)
    assert (good.aspects[0].votes, poor.aspects[0].votes) == ((8.0,) * 3, (2.0,) * 3)
    assert [turn.written for turn in model.turns[12:]] == [(number, 99) for number in range(12)]
    assert all(turn.closing.endswith(OBJECTIVE.judge.prefill) for turn in model.turns[12:])


def test_a_model_that_takes_no_prefill_is_asked_for_the_digit_without_votes() -> None:
    model = ScriptedModel(digit=digit_of, takes_prefill=False)
    good, _ = judge_by(model, method=JudgingMethod.VOTES, votes=3).score(CANDIDATES)
    assert (len(model.turns), good.aspects[0].votes) == (4, ())


def test_pairs_are_shown_in_both_orders() -> None:
    model = ScriptedModel(digit=lambda question: 0.0 if "good" in shown(question)[0] else 1.0)
    judge = PairwiseJudge(model, OBJECTIVE, min_mass=0.01, delimiter_seed=7)
    messages: list[Message] = [{"role": "user", "content": "How?"}]
    pairs = [AnswerPair("p0", messages, "A good one.", "A poor one."), AnswerPair("p1", messages, "poor", "good")]
    found = judge.compare(pairs, None)
    assert [(p.shown_first, p.shown_second) for p in found] == [(1.0, 1.0), (0.0, 0.0)]


@pytest.fixture(scope="module")
def window(tiny_tokenizer: Any) -> Window:
    return Window(ChatTemplate(tiny_tokenizer), 4096)


def rollouts() -> list[dict[str, Any]]:
    """Three prompts with a good and a poor answer each."""
    return [
        {
            "prompt_id": f"p{prompt}",
            "candidate": candidate,
            "prompt_ids": [1],
            "completion_ids": [2, 3],
            "logprobs": [0.0, 0.0],
            "finish_reason": "stop",
            "policy": "base",
            "text": text,
            "messages": [{"role": "user", "content": f"How does {prompt} work?"}],
        }
        for prompt in range(3)
        for candidate, text in enumerate(("It is good.", "It is poor."))
    ]


def test_an_endpoint_judges_the_training_as_an_engine_does(
    tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_artifact(tmp_path, "rollouts", Stage.GENERATE, rollouts(), schema=ROLLOUT)
    (tmp_path / "judgements").mkdir()
    params = JudgeParams(
        objective=OBJECTIVE,
        judging=JudgingSettings(canaries=CanarySettings(prompts=2, injections=2)),
        judge=Policy(),
        max_tokens=8,
        prompts_per_part=2,
    )
    context = StageContext(
        config=StageConfig(run="r", iteration=0, params=params),
        params=params,
        layout=RunLayout(tmp_path),
        folder=tmp_path / "judgements",
        shard=0,
        inputs={"rollouts": (tmp_path / "rollouts",)},
        telemetry=Telemetry(),
        stopping=threading.Event(),
    )

    def answer(body: dict[str, Any]) -> Answer:
        return completion(f"{digit_of(body['messages'][0]['content']):.0f}")

    with serve_chat(answer) as server:
        settings = EndpointSettings(url=server.url, model="m", concurrency=1)
        outside = open_model(JUDGE_ENDPOINT, settings, {}, Journal(Path(os.devnull)), window)
        base = ScriptedModel(digit=digit_of, version="base", window=window)
        monkeypatch.setattr(stage, "open_judges", lambda context: Judges(configured=outside, base=base))
        output = stage.run(context)
    judged = [
        row for name in output.files if name.startswith("part") for row in read_rows(context.folder / name, JUDGEMENT)
    ]
    assert {row["judge"] for row in judged} == {"endpoint:m"}
    assert [round(row["raw_reward"] * 9, 6) for row in judged] == [8.0, 2.0] * 3
    assert {row["judge"] for row in read_rows(context.folder / "canaries.parquet", CANARY)} == {"endpoint:m"}
    assert output.metrics[JudgeMetrics.judge_tau] == pytest.approx(1.0)
    assert base.turns, "the base model judges some prompts too"


def test_what_an_endpoint_reads_begins_alike_as_far_as_it_can(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's prefix cache reads preamble and rubric once, a prompt once for its group, an answer for all aspects."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    candidates = [
        Candidate(prompt, [{"role": "user", "content": f"How is {prompt}?"}], text)
        for prompt in ("p0", "p1")
        for text in ("A good one.", "A poor one.")
    ]
    with serve_chat(lambda body: completion("5")) as server:
        settings = EndpointSettings(url=server.url, model="m", concurrency=1)
        outside = open_model(JUDGE_ENDPOINT, settings, {}, Journal(Path(os.devnull)), window)
        PointwiseJudge(outside, OBJECTIVE, JudgingSettings(), seed=lambda *salt: 7).score(candidates)
    asked = [body["messages"][0]["content"] for body in server.asked]
    assert len(asked) == len(candidates) * len(OBJECTIVE.aspects)

    def common(*numbers: int) -> str:
        letters = zip(*(asked[number] for number in numbers), strict=False)
        return "".join(some[0] for some in takewhile(lambda some: len(set(some)) == 1, letters))

    assert "A good one." in common(0, 1)
    assert "A poor one." in common(2, 3)
    assert "How is p0?" in common(0, 1, 2, 3)
    assert common(0, 1, 2, 3).endswith("A ")
    assert OBJECTIVE.rubric in common(*range(8))
    assert common(*range(8)).endswith("How is p")
