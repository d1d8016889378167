"""The evaluate stage with a judge behind vLLM's own OpenAI server, beside the run's own engine."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import EvaluateParams, Policy, StageConfig
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointBudget, EndpointSettings
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import ANSWERS_FILE, COMPARISONS_FILE, RATINGS_FILE
from dynalign_contract.records import ANSWER, COMPARISON, RATING, read_rows
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.settings import (
    EvaluationJudge,
    EvaluationSettings,
    JudgingSettings,
    Ratings,
    WinRateMethod,
    WinRateSettings,
)
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.endpoints.client import open_endpoint
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.window import Window
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from lab.testbed import load_testbed
from lab.testbed_language import draw_answer, rule
from support.judging_data import (
    StageRun,
    draw_question,
    held_out_prompts,
    metrics_of,
    rule_objective,
    write_worse_adapter,
)
from support.vllm_server import WITHOUT_ORDERS, serve_testbed

pytestmark = pytest.mark.slow

KEY = "sk-test-bed"
PROMPTS = 12
OBJECTIVE = rule_objective()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of vLLM serving the test-bed's model, which has learnt the rule, as `bed`."""
    with serve_testbed(tmp_path_factory.mktemp("vllm"), KEY, WITHOUT_ORDERS) as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DYNALIGN_JUDGE_API_KEY", KEY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    return StageRun.of(tmp_path_factory.mktemp("run"), load_testbed().model)


def endpoint(url: str, **settings: Any) -> EndpointSettings:
    key = SecretKeyRef(name="keys", key="judge")
    return EndpointSettings(url=url, model="bed", api_key_secret_ref=key, retries=1, **settings)


def config(run: StageRun, policy: Policy, found: EndpointSettings, **settings: Any) -> StageConfig:
    win_rate = WinRateSettings(
        judges=(EvaluationJudge.ENDPOINT, EvaluationJudge.BASE),
        endpoint=found,
        resamples=200,
        **{"method": WinRateMethod.POINTWISE, **settings},
    )
    params = EvaluateParams(
        objective=OBJECTIVE,
        evaluation=EvaluationSettings(win_rate=win_rate, ratings=Ratings.BRADLEY_TERRY),
        policy=policy,
        max_tokens=40,
    )
    return run.config(params, {"heldout": run.held_out(held_out_prompts(OBJECTIVE, PROMPTS))}, [policy])


def test_a_judge_that_knows_the_rule_prefers_the_better_answers(server: str) -> None:
    draw = random.Random(0)
    candidates = []
    for number in range(60):
        asked, view, topic = draw_question(OBJECTIVE, draw)
        messages: list[Message] = [{"role": "user", "content": asked}]
        candidates.append(Candidate(f"p{number}", messages, draw_answer(draw, view, topic)))
    opened = open_endpoint(JUDGE_ENDPOINT, endpoint(server), os.environ, Journal(Path(os.devnull)))
    window = Window(ChatTemplate(load_tokenizer(load_testbed().model)), 512)
    judge = PointwiseJudge(EndpointModel(opened, window), OBJECTIVE, JudgingSettings(), seed=lambda *salt: 7)
    rewards = [score.reward for score in judge.score(candidates)]
    worth = [rule(candidate.text) for candidate in candidates]
    decided = [(i, j) for i in range(60) for j in range(i) if abs(worth[i] - worth[j]) >= 1]
    right = [(rewards[i] > rewards[j]) is (worth[i] > worth[j]) for i, j in decided]
    assert sum(right) / len(right) > 0.95


def test_its_verdict_is_the_headline_and_what_it_cost_is_reported(server: str, run: StageRun) -> None:
    policy = run.adapter(seed=1, write=write_worse_adapter)
    wanted = config(run, policy, endpoint(server))
    result = run.execute(wanted)
    assert result.error is None
    found, folder = metrics_of(result), run.root / wanted.folder
    rows = read_rows(folder / COMPARISONS_FILE, COMPARISON)
    assert [row["judge"] for row in rows] == ["endpoint:bed"] * PROMPTS + ["base"] * PROMPTS

    worth = [rule(row["text"]) for row in read_rows(folder / ANSWERS_FILE, ANSWER)]
    assert sum(worth[:PROMPTS]) > sum(worth[PROMPTS:]) + PROMPTS
    assert found["win_rate"] == found["win_rate_endpoint"]
    assert found["win_rate"] is not None
    assert found["win_rate"] < 0.3
    assert (found["win_rate_live"], found["regressed"]) == (None, 1)

    external, base = rows[:PROMPTS], rows[PROMPTS:]  # the same weights, behind HTTP and in the engine
    assert [row["first"] for row in external] == pytest.approx([row["first"] for row in base], abs=0.01)

    assert found["judge_requests"] == 2 * PROMPTS
    assert found["judge_tokens"] is not None
    assert found["judge_tokens"] > 2 * PROMPTS * 20
    (ours,) = [row for row in read_rows(folder / RATINGS_FILE, RATING) if row["policy"] == policy.version]
    assert ours["points"] == found["rating"]
    assert ours["points"] < 0
    assert not (folder / JOURNAL_FILE).exists()
    written = [path.read_bytes() for path in run.root.rglob("*") if path.is_file() and "model" not in path.parts]
    assert not any(KEY.encode() in data for data in written)


@pytest.mark.parametrize(
    ("settings", "method", "words"),
    [
        ({"budget": EndpointBudget(requests=3)}, WinRateMethod.POINTWISE, "budget.requests of 3 is used up (3 spent)"),
        ({}, WinRateMethod.PAIRWISE, "the other replies do not hold the letter A or B"),
    ],
)
def test_a_judge_that_can_judge_too_little_is_named_with_what_to_change(
    server: str, run: StageRun, settings: dict[str, Any], method: WinRateMethod, words: str
) -> None:
    """The test-bed's model rates answers; of letters it knows nothing."""
    result = run.execute(config(run, run.adapter(seed=2), endpoint(server, **settings), method=method))
    assert result.exit_code == ExitCode.BAD_CONFIG
    assert result.error is not None
    assert "endpoint:bed could judge only" in result.error.message
    assert words in result.error.message


def test_without_its_key_nothing_is_started(run: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNALIGN_JUDGE_API_KEY")
    result = run.execute(config(run, run.adapter(seed=3), endpoint("http://127.0.0.1:9/v1")))
    assert result.exit_code == ExitCode.BAD_CONFIG
    assert result.error is not None
    assert "evaluation.winRate.endpoint.apiKeySecretRef asks for a key, but DYNALIGN_JUDGE_API_KEY is not set" in (
        result.error.message
    )
