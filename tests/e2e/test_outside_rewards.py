"""Rewards from outside in whole runs: judges behind vLLM's own server, one of them unsteady, and rewards of a server
and of a package."""

import itertools
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import httpx
import pytest

from dynalign_contract.layout import ANSWERS_FILE, RunLayout
from dynalign_contract.manifest import read_manifest
from dynalign_contract.metrics import EvaluateMetrics, JudgeMetrics, MetricDef, read_metrics
from dynalign_contract.records import ANSWER, BATCH, JUDGEMENT, ROLLOUT, JudgementRow, read_parts, read_rows
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase
from lab.local_runs import COMMAND, LocalRun, write_run
from lab.testbed import load_testbed
from support.chat_server import Answer, ChatServer, refusal, serve_chat
from support.reward_packages import write_distribution
from support.reward_servers import start_example
from support.vllm_server import WITHOUT_ORDERS, serve_testbed

pytestmark = pytest.mark.slow

KEY: Final = "sk-test-bed"
SHORT: Final[dict[str, Any]] = {
    "iterations": 1,
    "prompts": {"perIteration": 6, "heldOut": 6, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 48},
    "training": {"promptsPerStep": 3, "lora": {"rank": 8}, "gradientCheckpointing": False},
    "evaluation": {"winRate": {"method": "Pointwise"}},
}
CANARIES: Final = {"prompts": 2, "injections": 2}
ANSWERS: Final = 6 * 4
JUDGES: Final = ("self", "outside", "unsteady")

SHORTNESS: Final = """
def score(request):
    return [1 / (1 + len(item["answer"].split())) for item in request["items"]]
"""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of vLLM serving the test-bed's model, which has learnt the rule, as `bed`."""
    with serve_testbed(tmp_path_factory.mktemp("vllm"), KEY, WITHOUT_ORDERS) as url:
        yield url


def judge(name: str, url: str, **settings: Any) -> dict[str, Any]:
    endpoint = {"url": url, "model": "bed", "apiKeySecretRef": {"name": "keys", "key": name}, **settings}
    return {"name": name, "judge": "Endpoint", "endpoint": endpoint}


def finish(folder: Path, changes: dict[str, Any], **environment: str) -> LocalRun:
    run = write_run(folder, load_testbed(), {**SHORT, **changes})
    keys = {f"DYNALIGN_JUDGE_{name}_API_KEY": KEY for name in ("OUTSIDE", "UNSTEADY")}
    result = run.finish(env={**os.environ, "NO_PROXY": "127.0.0.1", **keys, **environment})
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
    assert run.status.phase is Phase.SUCCEEDED
    return run


def judgements(run: LocalRun) -> list[JudgementRow]:
    rows = read_parts([RunLayout(run.workdir).stage(Stage.JUDGE, 0)], JUDGEMENT)
    assert len(rows) == ANSWERS
    return rows


def numbers(run: LocalRun, stage: Stage) -> dict[MetricDef[Any], float]:
    """What the status has of this stage of the only iteration."""
    (iteration,) = run.status.iterations
    (found,) = [entry for entry in iteration.stages if entry.stage is stage]
    return read_metrics(stage, found.metrics)


def shown_status(run: LocalRun) -> str:
    command = [*COMMAND, "status", "--wide", str(run.workdir)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout


class TestAnOutsideJudgeAlone:
    """Beside it a server and a package give rewards, the server only for those who know its key."""

    @pytest.fixture(scope="class")
    def run(self, vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
        folder = tmp_path_factory.mktemp("alone")
        packages = write_distribution(folder, SHORTNESS, distribution="short-rewards", shortness="score")
        with start_example("variety-key") as url:
            server = {"url": url, "apiKeySecretRef": {"name": "keys", "key": "variety"}}
            rewards = [
                {"name": "variety", "type": "Http", "endpoint": server, "batchSize": 5, "weight": 2},
                {"name": "shortness", "type": "Python", "entryPoint": "shortness", "weight": 0.5},
            ]
            judging = {"judges": [judge("outside", vllm)], "canaries": CANARIES}
            yield finish(
                folder,
                {"judging": judging, "rewards": rewards},
                PYTHONPATH=str(packages),
                DYNALIGN_REWARD_VARIETY_API_KEY="variety-key",
            )

    def test_its_rewards_are_those_that_are_trained_on(self, run: LocalRun) -> None:
        rows = judgements(run)
        assert {row["judge"] for row in rows} == {"outside=endpoint:bed"}
        assert all(row["raw_reward"] == row["judges"]["outside"] for row in rows)
        for row in rows:
            values = row["verifiers"]
            expected = (row["raw_reward"] + 2 * values["variety"] + 0.5 * values["shortness"]) / 3.5
            assert row["reward"] == pytest.approx(expected, abs=1e-6)
        assert len({row["raw_reward"] for row in rows}) > ANSWERS / 4
        batch = read_rows(RunLayout(run.workdir).batch(0) / "batch.parquet", BATCH)
        assert batch
        rewards = {(row["prompt_id"], row["candidate"]): row["reward"] for row in rows}
        assert [row["reward"] for row in batch] == [rewards[row["prompt_id"], row["candidate"]] for row in batch]

    def test_server_and_package_valued_what_was_written(self, run: LocalRun) -> None:
        rollouts = read_parts([RunLayout(run.workdir).stage(Stage.GENERATE, 0)], ROLLOUT)
        texts = {(row["prompt_id"], row["candidate"]): row["text"] for row in rollouts}
        for row in judgements(run):
            words = texts[row["prompt_id"], row["candidate"]].lower().split()
            expected = {"variety": len(set(words)) / len(words), "shortness": 1 / (1 + len(words))}
            assert row["verifiers"] == pytest.approx(expected, abs=1e-6)

    def test_the_status_has_every_part_of_the_reward(self, run: LocalRun) -> None:
        rows, found = judgements(run), numbers(run, Stage.JUDGE)
        for name in ("variety", "shortness"):
            mean = fmean(row["verifiers"][name] for row in rows)
            assert found[JudgeMetrics.verifier_reward.of(name)] == pytest.approx(mean, abs=1e-6)
            assert found[JudgeMetrics.verifier_failed_share.of(name)] == 0
        assert found[JudgeMetrics.judge_reward.of("outside")] == pytest.approx(
            fmean(row["raw_reward"] for row in rows), abs=1e-6
        )
        assert found[JudgeMetrics.judge_requests.of("outside")] >= ANSWERS
        assert found[JudgeMetrics.judge_tokens.of("outside")] > ANSWERS
        assert JudgeMetrics.judge_tau not in found  # without an engine there is no base model to agree with
        shown = shown_status(run)
        assert all(name in shown for name in ("outside", "variety", "shortness"))

    def test_held_out_answers_are_valued_too(self, run: LocalRun) -> None:
        folder, found = RunLayout(run.workdir).stage(Stage.EVALUATE, 0), numbers(run, Stage.EVALUATE)
        rows = [row for row in read_rows(folder / ANSWERS_FILE, ANSWER) if row["policy"] == "iteration-000"]
        for name in ("variety", "shortness"):
            mean = fmean(row["verifiers"][name] for row in rows)
            assert found[EvaluateMetrics.verifier_value.of(name)] == pytest.approx(mean, abs=1e-6)
            assert EvaluateMetrics.verifier_delta.value.of(name) in found

    def test_the_package_is_named_and_no_key_is_written(self, run: LocalRun) -> None:
        layout = RunLayout(run.workdir)
        for stage in (Stage.JUDGE, Stage.EVALUATE):
            manifest = read_manifest(layout.stage(stage, 0))
            assert manifest is not None
            assert manifest.producers["short-rewards"] == "1.2.3"
        written = [path.read_bytes() for path in run.workdir.rglob("*") if path.is_file() and "model" not in path.parts]
        assert written
        assert not any(key.encode() in data for data in written for key in (KEY, "variety-key"))


class TestAPanelWithAnUnsteadyJudge:
    """The policy, an outside judge, and the same one behind a proxy that fails at every second request."""

    @pytest.fixture(scope="class")
    def proxy(self, vllm: str) -> Iterator[ChatServer]:
        turns = itertools.count()

        def every_second(body: dict[str, Any]) -> Answer:
            if next(turns) % 2:
                return refusal(500, "out of memory")
            key = {"Authorization": f"Bearer {KEY}"}
            reply = httpx.post(f"{vllm}/chat/completions", json=body, headers=key, timeout=120, trust_env=False)
            return Answer(reply.content, reply.status_code)

        with serve_chat(every_second) as server:
            yield server

    @pytest.fixture(scope="class")
    def run(self, vllm: str, proxy: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
        judges = [
            {"name": "self", "judge": "Live"},
            judge("outside", vllm),
            judge("unsteady", proxy.url, retries=0, concurrency=1),
        ]
        gates = {"maxFailedShare": 0.7}
        judging = {"judges": judges, "minJudges": 2, "combine": "Median", "gates": gates, "canaries": CANARIES}
        return finish(tmp_path_factory.mktemp("panel"), {"judging": judging})

    def test_what_it_did_not_say_is_missing_and_never_0(self, run: LocalRun) -> None:
        missing = 0
        for row in judgements(run):
            given = {name: reward for name, reward in row["judges"].items() if not math.isnan(reward)}
            missing += "unsteady" not in given
            assert given.keys() >= {"self", "outside"}
            assert row["reward"] == pytest.approx(median(given.values()), abs=1e-6)
        assert ANSWERS / 8 < missing < 7 * ANSWERS / 8  # a half, but for answers that are equal and asked about once

    def test_what_it_said_is_what_the_steady_one_says(self, run: LocalRun) -> None:
        both = [row["judges"] for row in judgements(run) if not math.isnan(row["judges"]["unsteady"])]
        assert [said["unsteady"] for said in both] == pytest.approx([said["outside"] for said in both], abs=1e-3)

    def test_the_metrics_count_it(self, run: LocalRun, proxy: ChatServer) -> None:
        found = numbers(run, Stage.JUDGE)
        said = [row["judges"]["unsteady"] for row in judgements(run)]
        given = [reward for reward in said if not math.isnan(reward)]
        shares = {name: found[JudgeMetrics.judge_failed_share.of(name)] for name in JUDGES}
        assert shares == {"self": 0, "outside": 0, "unsteady": pytest.approx(1 - len(given) / ANSWERS)}
        assert found[JudgeMetrics.failed_share] == 0
        assert found[JudgeMetrics.judge_reward.of("unsteady")] == pytest.approx(fmean(given), abs=1e-6)
        # fetch has asked too, and evaluate about the held-out answers
        assert len(set(given)) <= found[JudgeMetrics.judge_requests.of("unsteady")] < len(proxy.asked)
        assert found[JudgeMetrics.disagreement] >= 0
        assert found[JudgeMetrics.unfit] == 0
        assert all(found[JudgeMetrics.judge_left_out.of(name)] == 0 for name in shares)

    def test_the_status_names_every_judge_with_its_failures(self, run: LocalRun) -> None:
        rows = [line.split() for line in shown_status(run).splitlines()]
        failed = {name: [cells[cells.index(name) + 2] for cells in rows if name in cells] for name in JUDGES}
        share = numbers(run, Stage.JUDGE)[JudgeMetrics.judge_failed_share.of("unsteady")]
        assert failed == {"self": ["0.00"], "outside": ["0.00"], "unsteady": [f"{share:.2f}"]}
