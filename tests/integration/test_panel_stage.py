"""The judge stage with several judges: two policies in one engine, and a server that fails half the time."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import CANARIES_FILE, MANIFEST
from dynalign_contract.records import CANARY, JUDGEMENT, JudgementRow, read_parts, read_rows
from dynalign_contract.result import Outcome
from dynalign_contract.settings import CanarySettings, JudgingSettings
from dynalign_trainer.endpoints.journal import JOURNAL_FILE
from dynalign_trainer.judge.panel.opinions import OPINIONS_FOLDER
from lab.testbed import load_testbed
from lab.tiny_qwen3 import write_tiny_qwen3
from support.chat_server import Answer, ChatServer, completion, refusal, serve_chat
from support.judging_data import (
    StageRun,
    metrics_of,
    rule_objective,
    write_contrary_adapter,
    written_rollouts,
)

pytestmark = pytest.mark.slow

PROMPTS, CANDIDATES = 4, 3
ANSWERS = PROMPTS * CANDIDATES
OBJECTIVE = rule_objective()
SELF = {"name": "self", "judge": "Live"}
BASE = {"name": "base", "judge": "Base"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fails_half_the_time(body: dict[str, Any]) -> Answer:
    """For half of the questions, and for the same ones whenever it is asked."""
    question = body["messages"][0]["content"]
    return refusal(500, "out of memory") if zlib.crc32(question.encode()) % 2 else completion("6", usage=(40, 1))


@pytest.fixture
def unsteady() -> Iterator[ChatServer]:
    with serve_chat(fails_half_the_time) as server:
        yield server


def outside(server: ChatServer, **settings: Any) -> dict[str, Any]:
    endpoint = {"url": server.url, "model": "m", "retries": 0, **settings}
    return {"name": "outside", "judge": "Endpoint", "endpoint": endpoint}


class PanelRun:
    """A run whose rollouts several judges are to judge."""

    def __init__(self, root: Path, model: Path, prompts: int = PROMPTS) -> None:
        root.mkdir()
        self.stages = StageRun.of(root, model)
        self._rows = written_rollouts(model, OBJECTIVE, prompts=prompts, candidates=CANDIDATES)

    def config(
        self, *judges: dict[str, Any], live: Policy | None = None, shards: int = 1, **judging: Any
    ) -> StageConfig:
        policies = {"self": live or Policy(), "base": Policy()}
        names = [judge["name"] for judge in judges]
        settings = {"minMass": 0, "canaries": CanarySettings(prompts=2, injections=2), **judging, "judges": judges}
        params = JudgeParams(
            objective=OBJECTIVE,
            judging=JudgingSettings.model_validate(settings),
            policies={name: policy for name, policy in policies.items() if name in names},
            max_tokens=64,
            prompts_per_part=2,
        )
        inputs = {"rollouts": self.stages.rollouts(self._rows)}
        return self.stages.config(params, inputs, list(params.policies.values()), shards)

    def folder(self, config: StageConfig, shard: int = 0) -> Path:
        return self.stages.root / config.shard(shard)

    def judgements(self, config: StageConfig, shard: int = 0) -> list[JudgementRow]:
        return read_parts([self.folder(config, shard)], JUDGEMENT)


def test_a_judge_that_fails_half_the_time_leaves_the_rewards_to_the_quorum(
    tmp_path: Path, unsteady: ChatServer
) -> None:
    run = PanelRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))
    live = run.stages.adapter(seed=1)
    config = run.config(
        SELF, BASE, outside(unsteady), live=live, minJudges=2, combine="Median", gates={"maxFailedShare": 0.9}
    )
    first = run.stages.execute(config)
    assert first.outcome is Outcome.SUCCEEDED, first.error
    rows = run.judgements(config)
    assert len(rows) == ANSWERS
    failed = [math.isnan(row["judges"]["outside"]) for row in rows]
    assert 0 < sum(failed) < ANSWERS
    for row, has_failed in zip(rows, failed, strict=True):
        given = sorted(row["judges"][name] for name in ("self", "base"))
        expected = sum(given) / 2 if has_failed else sorted([*given, 6 / 9])[1]
        assert row["reward"] == pytest.approx(expected, abs=1e-6)
    assert any(abs(row["judges"]["self"] - row["judges"]["base"]) > 1e-6 for row in rows)
    assert {row["judge"] for row in rows} == {"self=iteration-001 base=base outside=endpoint:m"}
    found = metrics_of(first)
    assert found["judge_failed_share/outside"] == pytest.approx(sum(failed) / ANSWERS)
    assert found["judge_requests/outside"] == len(unsteady.asked)
    answered = sum(fails_half_the_time(body).status == 200 for body in unsteady.asked)
    assert found["judge_tokens/outside"] == 41 * answered
    assert found["judge_tau"] is not None
    assert found["disagreement"] is not None
    canaries = read_rows(run.folder(config) / CANARIES_FILE, CANARY)
    assert {tuple(row["judges"]) for row in canaries} == {("self", "base", "outside")}
    assert [(run.folder(config) / name).exists() for name in (JOURNAL_FILE, OPINIONS_FOLDER)] == [False, False]

    (run.folder(config) / MANIFEST).unlink()
    assert run.stages.execute(config).artifact == first.artifact


def test_by_default_an_answer_needs_every_judge(tmp_path: Path, unsteady: ChatServer) -> None:
    run = PanelRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))
    config = run.config(BASE, outside(unsteady), gates={"maxFailedShare": 0.9})
    assert run.stages.execute(config).error is None
    rows = run.judgements(config)
    assert [math.isnan(row["reward"]) for row in rows] == [math.isnan(row["judges"]["outside"]) for row in rows]
    strict = run.config(BASE, outside(unsteady), gates={"maxFailedShare": 0.1})
    refused = run.stages.execute(strict)
    assert refused.exit_code == ExitCode.UNFIT
    assert refused.error is not None
    assert "the judge outside (endpoint:m) is unfit" in refused.error.message


def test_shards_leave_out_the_same_judges(tmp_path: Path) -> None:
    """A policy that learnt the contrary of the rule, and a server that likes everything, beside the honest base."""
    run = PanelRun(tmp_path / "run", load_testbed().model)
    live = run.stages.adapter(seed=1, write=write_contrary_adapter)
    with serve_chat(lambda body: completion("9")) as server:
        gates = {"minBaseAgreement": 0.5, "onUnfit": "LeaveOut"}
        config = run.config(SELF, BASE, outside(server), live=live, shards=2, gates=gates)
        results = [run.stages.execute(config, shard) for shard in (0, 1)]
    assert [result.error for result in results] == [None, None]
    found = [metrics_of(result) for result in results]
    assert [[numbers[f"judge_left_out/{name}"] for name in ("self", "base", "outside")] for numbers in found] == [
        [1, 0, 1]
    ] * 2
    assert found[0]["judge_canary_auc/self"] == pytest.approx(found[1]["judge_canary_auc/self"], abs=1e-4)
    rows = [row for shard in (0, 1) for row in run.judgements(config, shard)]
    assert len(rows) == ANSWERS
    assert {row["judge"] for row in rows} == {"base=base"}
    assert all(row["reward"] == row["judges"]["base"] for row in rows)
    assert len(results[0].warnings) == 2


def test_outside_judges_alone_start_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynalign_trainer.judge.panel.members.start_engine", None)
    run = PanelRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))
    with serve_chat(lambda body: completion("7")) as server:
        config = run.config(outside(server))
        result = run.stages.execute(config)
    assert result.error is None
    assert {round(row["reward"], 5) for row in run.judgements(config)} == {round(7 / 9, 5)}
    assert metrics_of(result)["judge_tau"] is None
