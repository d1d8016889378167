"""Agents behind vLLM's own OpenAI server: the prompts stage without an engine of its own, and what goes wrong."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dynalign_contract.agents import (
    AgentModel,
    AgentsSettings,
    AuthorSettings,
    CriticSettings,
    ReviserSettings,
)
from dynalign_contract.config import PromptsParams, StageConfig
from dynalign_contract.endpoints import EndpointBudget, EndpointSettings
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import DRAFTS_FILE, HELD_OUT_FILE, PROMPTS_FILE, YIELD_FILE
from dynalign_contract.objective import CriticTemplate, ReviserTemplate
from dynalign_contract.prompt_yield import PromptYields
from dynalign_contract.records import DRAFT, PROMPT, read_rows
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.settings import DedupSettings, PromptSettings
from lab.testbed import load_testbed
from support.judging_data import StageRun, metrics_of, rule_objective
from support.vllm_server import serve_testbed

pytestmark = pytest.mark.slow

KEY = "sk-test-bed"
OBJECTIVE = rule_objective().model_copy(
    update={
        "critic": CriticTemplate(
            message="Question: $prompt\nAnswer: $prompt parts move flow because parts move heat.",
            criteria={"substance": "Rate the substance."},
        ),
        "reviser": ReviserTemplate(message="Ask about new rivers.$prompt"),
    }
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of vLLM serving the test-bed's model as `bed`."""
    with serve_testbed(tmp_path_factory.mktemp("vllm"), KEY) as url:
        yield url


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    return StageRun.of(tmp_path_factory.mktemp("run"), load_testbed().model)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for role in ("AUTHOR", "CRITIC", "REVISER"):
        monkeypatch.setenv(f"DYNALIGN_{role}_API_KEY", KEY)


def agents(url: str, **endpoint: Any) -> AgentsSettings:
    settings = {"url": url, "model": "bed", "api_key_secret_ref": SecretKeyRef(name="keys", key="k"), "retries": 1}
    played: dict[str, Any] = {
        "model": AgentModel.ENDPOINT,
        "endpoint": EndpointSettings.model_validate(settings | endpoint),
    }
    return AgentsSettings(
        author=AuthorSettings(max_tokens=24, **played),
        critic=CriticSettings(**played),
        reviser=ReviserSettings(revise_from=0, revise_below=9, max_tokens=24, **played),
    )


def config(run: StageRun, found: AgentsSettings, **settings: Any) -> StageConfig:
    prompts = PromptSettings(
        per_iteration=6,
        held_out=3,
        min_characters=8,
        agents=found,
        dedup=DedupSettings(threshold=1.0),
        **settings,
    )
    return run.config(PromptsParams(objective=OBJECTIVE, prompts=prompts, reserve_tokens=48), {})


def test_three_agents_behind_an_endpoint_write_the_prompts_and_no_engine_is_started(server: str, run: StageRun) -> None:
    wanted = config(run, agents(server))
    result = run.execute(wanted)
    assert result.artifact is not None, result.error
    folder = run.root / result.artifact.path
    rows = read_rows(folder / PROMPTS_FILE, PROMPT)
    assert len(rows) == 6
    assert all(row["agents"]["author"] == row["agents"]["critic"] == "endpoint:bed" for row in rows)
    assert all(0 <= row["critic_score"] <= 9 for row in rows)
    assert len({row["messages"][0]["content"] for row in rows}) == 6
    assert len(read_rows(folder / HELD_OUT_FILE, PROMPT)) == 3

    drafts = {row["draft_id"]: row for row in read_rows(folder / DRAFTS_FILE, DRAFT)}
    assert len(drafts) >= 18
    for row in rows:
        draft = drafts[row["draft_id"]]
        assert (draft["prompt_id"], draft["outcome"]) == (row["prompt_id"], "kept")
        assert row["messages"][0]["content"] == (draft["revised"] or draft["text"])
        assert not row["draft"] or (row["draft"] == draft["text"] and row["critic_score"] > row["draft_score"])

    held_out, training = PromptYields.model_validate_json((folder / YIELD_FILE).read_bytes()).sets
    assert (held_out.purpose, training.purpose, training.found) == ("heldout", "train", 6)
    spent = {agent.agent: (agent.model, agent.requests > 0, agent.tokens > 0) for agent in training.agents}
    assert spent["author"] == spent["critic"] == spent["reviser"] == ("endpoint:bed", True, True)
    assert spent["curator"] == ("", False, False)
    assert metrics_of(result)["requests"] == sum(agent.requests for agent in training.agents)

    written = [path.read_bytes() for path in run.root.rglob("*") if path.is_file() and "model" not in path.parts]
    assert not any(KEY.encode() in data for data in written)


def test_a_wrong_key_and_a_wrong_model_are_told_apart(
    server: str, run: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run.execute(config(run, agents(server, model="big")))
    assert missing.exit_code == ExitCode.BAD_CONFIG
    assert missing.error is not None
    assert (
        "has no model big. Write one that it has in prompts.agents.author.endpoint.model: bed." in missing.error.message
    )

    monkeypatch.setenv("DYNALIGN_AUTHOR_API_KEY", "sk-wrong")
    refused = run.execute(config(run, agents(server)))
    assert refused.exit_code == ExitCode.BAD_CONFIG
    assert refused.error is not None
    assert "refuses the key with status 401" in refused.error.message
    assert "sk-wrong" not in refused.error.message


def test_a_budget_that_is_too_small_ends_the_stage_and_is_named(server: str, run: StageRun) -> None:
    result = run.execute(config(run, agents(server, budget=EndpointBudget(requests=2))))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "prompts.agents.author.endpoint.budget.requests of 2 is used up (2 spent); raise it" in result.error.message


def test_what_vllm_calls_the_likeliest_digit_is_what_its_log_probabilities_say(server: str) -> None:
    """The fields of the response that the critic reads are those that vLLM sends."""
    body = {
        "model": "bed",
        "messages": [
            {
                "role": "user",
                "content": "Question: Explain old rivers.\nAnswer: old parts move flow.\n\nRate the substance.",
            }
        ],
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 20,
    }
    found = httpx.post(
        f"{server}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
        trust_env=False,
    ).json()
    content = found["choices"][0]["logprobs"]["content"]
    (digit,) = [position for position in content if position["token"].strip().isdigit()]
    assert len(digit["top_logprobs"]) == 20
    assert json.dumps(digit["top_logprobs"][0]["token"]) == json.dumps(digit["token"])
