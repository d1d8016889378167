"""prompts, then generate: what they write, and that a stopped worker ends in the same rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.agents import AgentsSettings, AuthorSettings
from dynalign_contract.config import GenerateParams, JudgeParams, Params, Policy, PromptsParams, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import HELD_OUT_FILE, PROMPTS_FILE, part_name
from dynalign_contract.manifest import read_manifest
from dynalign_contract.pod_paths import Variable
from dynalign_contract.records import CANARY, JUDGEMENT, PROMPT, ROLLOUT, PromptRow, RolloutRow, read_parts, read_rows
from dynalign_contract.result import ArtifactRef, Outcome, StageResult
from dynalign_contract.settings import (
    DEFAULT_CHAT,
    ChatSettings,
    DedupSettings,
    EngineSettings,
    GenerationSettings,
    JudgingSettings,
    PromptSettings,
    SuppliedPrompts,
    Thinking,
)
from dynalign_contract.stages import Stage
from dynalign_trainer.generate import sampling
from dynalign_trainer.generate.sampling import Stream
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from lab.testbed import load_testbed
from support.judging_data import metrics_of, rule_objective
from support.odd_models import OPENS_THOUGHT, break_weights, set_template
from support.training_data import write_artifact

pytestmark = pytest.mark.slow

OBJECTIVE = rule_objective()
GENERATION = GenerationSettings(candidates=4, max_tokens=48, prompts_per_part=1)
PROMPTS = PromptSettings(
    per_iteration=8,
    held_out=4,
    min_characters=8,
    agents=AgentsSettings(author=AuthorSettings(max_tokens=24)),
    dedup=DedupSettings(threshold=1.0),
)


@dataclass(frozen=True)
class Run:
    """A run's folder whose stages are run in the life that `dynalign-stage` gives them."""

    root: Path
    model: ArtifactRef

    def config(
        self, params: Params, iteration: int = 0, chat: ChatSettings = DEFAULT_CHAT, **inputs: ArtifactRef
    ) -> StageConfig:
        return StageConfig(
            chat=chat,
            run="test",
            iteration=iteration,
            engine=EngineSettings(max_length=512),
            inputs={"model": self.model, **{name.replace("_", "-"): ref for name, ref in inputs.items()}},
            params=params,
        )

    def start(self, config: StageConfig, shard: int = 0) -> subprocess.Popen[bytes]:
        path = self.root / f"stage-{shard}.json"
        path.write_text(config.to_json())
        command = [sys.executable, "-m", "dynalign_trainer.main", "--config", str(path), "--root", str(self.root)]
        return subprocess.Popen(
            [*command, "--result", str(self.root / f"result-{shard}")],
            env={**os.environ, Variable.COMPLETION_INDEX: str(shard)},
        )

    def finish(self, config: StageConfig) -> StageResult:
        (self.root / "stage.json").write_text(config.to_json())
        code = run_stage(self.root / "stage.json", self.root, self.root / "result", Place())
        result = StageResult.decode((self.root / "result").read_bytes())
        assert result.exit_code == code
        return result

    def artifact(self, config: StageConfig) -> ArtifactRef:
        result = self.finish(config)
        assert result.artifact is not None, result.error
        return result.artifact

    def prompts(self, artifact: ArtifactRef, name: str = PROMPTS_FILE) -> list[PromptRow]:
        return read_rows(self.root / artifact.path / name, PROMPT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(load_testbed().model, root / "model")
    return Run(root, write_artifact(root, "model", Stage.FETCH))


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    """A run of the test's own: it may write the first prompts, which other tests share, in another way."""
    shutil.copytree(load_testbed().model, tmp_path / "model")
    return Run(tmp_path, write_artifact(tmp_path, "model", Stage.FETCH))


@pytest.fixture(scope="module")
def first(run: Run) -> ArtifactRef:
    """Prompts of iteration 0."""
    return run.artifact(run.config(PromptsParams(objective=OBJECTIVE, prompts=PROMPTS, reserve_tokens=48)))


def texts(rows: list[PromptRow]) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll until the condition holds; the process's end ends the wait too."""
    while not condition() and process.poll() is None:
        time.sleep(0.005)
    assert condition()


def test_agents_write_distinct_training_and_held_out_prompts(run: Run, first: ArtifactRef) -> None:
    training, held_out = run.prompts(first), run.prompts(first, HELD_OUT_FILE)
    assert [row["prompt_id"] for row in held_out] == [f"heldout-{i:05d}" for i in range(len(held_out))]
    assert len(training) == 8
    assert len(set(texts(training + held_out))) == len(training) + len(held_out)
    assert all(set(row["facets"]) == {"view", "topic"} and row["source"] == "agents" for row in training)
    topics = OBJECTIVE.facets["topic"]
    assert all(text.startswith("Explain ") and set(text.split()) & set(topics) for text in texts(training))


def test_later_iterations_write_new_prompts_and_take_supplied_ones(
    run: Run, first: ArtifactRef, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    known = texts(run.prompts(first, HELD_OUT_FILE))[0]
    lines = [known, "What do rivers say?", "What do clocks say?", "What do rivers say?"]
    mine.write_text("\n".join(json.dumps({"prompt": line}) for line in lines))
    prompts = PROMPTS.model_copy(update={"supplied": SuppliedPrompts(uri=str(mine), share=0.5), "min_yield": 0.25})
    params = PromptsParams(objective=OBJECTIVE, prompts=prompts, reserve_tokens=48)
    config = run.config(params, iteration=1, heldout=first, history_000=first)
    result = run.finish(config)
    assert result.artifact is not None, result.error
    rows = run.prompts(result.artifact)
    supplied = [row for row in rows if row["source"] == "supplied"]
    assert sorted(texts(supplied)) == ["What do clocks say?", "What do rivers say?"]
    earlier = texts(run.prompts(first)) + texts(run.prompts(first, HELD_OUT_FILE))
    assert not set(texts(rows)) & set(earlier)
    duplicates = metrics_of(result)["duplicate_share"]
    assert duplicates is not None
    assert duplicates > 0
    assert not (run.root / result.artifact.path / HELD_OUT_FILE).exists()


def test_columns_that_verifiers_read_stay_with_their_prompts(fresh: Run, tmp_path: Path) -> None:
    answers = {f"How much is {i} + {i}, in words?": str(2 * i) for i in range(6)}
    mine = tmp_path / "mine.jsonl"
    mine.write_text("\n".join(json.dumps({"prompt": text, "answer": int(value)}) for text, value in answers.items()))
    prompts = PROMPTS.model_copy(update={"supplied": SuppliedPrompts(uri=str(mine)), "per_iteration": 4, "held_out": 2})
    params = PromptsParams(objective=OBJECTIVE, prompts=prompts, reserve_tokens=48, columns=("answer",))
    result = fresh.finish(fresh.config(params))
    assert result.artifact is not None, result.error
    rows = fresh.prompts(result.artifact)
    assert len(rows) == 4
    assert [row["columns"] for row in rows] == [{"answer": answers[text]} for text in texts(rows)]


def test_too_few_prompts_are_an_error_that_quotes_samples(run: Run, first: ArtifactRef) -> None:
    prompts = PROMPTS.model_copy(update={"max_tokens": 8})
    params = PromptsParams(objective=OBJECTIVE, prompts=prompts, reserve_tokens=48)
    result = run.finish(run.config(params, iteration=2, heldout=first))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "only 0 of 8 training prompts remain" in result.error.message
    assert "long: 'Explain" in result.error.message


def test_a_stopped_worker_ends_in_the_same_rows(run: Run, first: ArtifactRef) -> None:
    config = run.config(GenerateParams(generation=GENERATION), prompts=first)
    folder = run.root / config.folder
    whole = run.artifact(config)
    rows = read_parts([folder], ROLLOUT)
    expected = [(row["prompt_id"], k) for row in run.prompts(first) for k in range(4)]
    assert [(row["prompt_id"], row["candidate"]) for row in rows] == expected
    assert all(len(row["completion_ids"]) == len(row["logprobs"]) > 0 for row in rows)

    folder.rename(run.root / "before")
    process = run.start(config)
    wait_until((folder / part_name(0)).exists, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.TERMINATED
    assert read_manifest(folder) is None
    kept = {path.name: path.stat().st_ino for path in folder.glob("part-*")}
    assert run.artifact(config).digest == whole.digest
    assert {name: (folder / name).stat().st_ino for name in kept} == kept


def same_tokens(rows: Sequence[RolloutRow]) -> list[tuple[str, int, list[int], str, str]]:
    """What rows say apart from last bits of log-probabilities, by prompt and candidate."""
    return sorted((r["prompt_id"], r["candidate"], r["completion_ids"], r["text"], r["finish_reason"]) for r in rows)


@pytest.fixture
def elsewhere(run: Run, first: ArtifactRef, tmp_path: Path) -> Run:
    """A folder of the test's own with the model and the first prompts."""
    shutil.copytree(run.root / "model", tmp_path / "model")
    shutil.copytree(run.root / first.path, tmp_path / first.path)
    return Run(tmp_path, write_artifact(tmp_path, "model", Stage.FETCH))


def test_a_shard_that_stands_still_delays_nobody_and_no_row_depends_on_it(
    run: Run, first: ArtifactRef, elsewhere: Run
) -> None:
    alone = run.config(GenerateParams(generation=GENERATION), prompts=first)
    assert run.artifact(alone)
    expected = {(row["prompt_id"], row["candidate"]): row for row in read_parts([run.root / alone.folder], ROLLOUT)}
    settings = GENERATION.model_copy(update={"shards": 2})
    config = elsewhere.config(GenerateParams(generation=settings), prompts=first).model_copy(update={"shards": 2})
    other, still = (elsewhere.root / config.shard(shard) for shard in (0, 1))
    leases = elsewhere.root / config.leases

    process = elsewhere.start(config, shard=1)
    wait_until((still / part_name(0)).exists, process)
    process.send_signal(signal.SIGSTOP)
    try:
        assert elsewhere.finish(config).outcome is Outcome.SUCCEEDED
        made = list(leases.glob("001-*.by-000.parquet"))
        left = 4 - len(list(still.glob("part-*")))
        assert len(made) >= left - 1 > 0, "all parts but those that it had finished and the one that it was at"
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == ExitCode.DONE
    assert not leases.exists()
    rows = read_parts([other, still], ROLLOUT)
    assert len(rows) == len(expected)
    assert all(row == expected[row["prompt_id"], row["candidate"]] for row in rows)


def test_parts_that_follow_each_other_without_a_pause_have_the_same_tokens(
    run: Run, first: ArtifactRef, elsewhere: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: parts enter while others are under way."""
    alone = run.config(GenerateParams(generation=GENERATION), prompts=first)
    assert run.artifact(alone)
    expected = same_tokens(read_parts([run.root / alone.folder], ROLLOUT))
    most = 0

    def start(context: StageContext[Any], policies: Sequence[Policy]) -> Engine:
        engine = start_engine(context, policies)
        engine.slots = 10
        return engine

    def watch(stream: Stream) -> None:
        nonlocal most
        most = max(most, stream._sampler.underway)

    monkeypatch.setattr(sampling, "start_engine", start)
    monkeypatch.setattr(Stream, "_watch", watch)
    config = elsewhere.config(GenerateParams(generation=GENERATION), prompts=first)
    assert elsewhere.artifact(config)
    assert same_tokens(read_parts([elsewhere.root / config.folder], ROLLOUT)) == expected
    assert most > GENERATION.candidates * GENERATION.prompts_per_part


def test_a_thought_that_never_ends_leaves_an_empty_answer_to_be_judged(
    run: Run, first: ArtifactRef, tmp_path: Path
) -> None:
    """The test-bed's model does not know how to end the thought that this template opens."""
    shutil.copytree(run.root / "model", tmp_path / "model")
    set_template(OPENS_THOUGHT)(tmp_path / "model")
    shutil.copytree(run.root / first.path, tmp_path / first.path)
    thinking = Run(tmp_path, write_artifact(tmp_path, "model", Stage.FETCH))
    chat = ChatSettings(thinking=Thinking.ON, system_prompt="Be brief.")
    settings = GENERATION.model_copy(update={"thinking_tokens": 9})

    result = thinking.finish(thinking.config(GenerateParams(generation=settings), chat=chat, prompts=first))
    assert result.artifact is not None, result.error
    rows = read_parts([tmp_path / result.artifact.path], ROLLOUT)
    tokenizer = load_tokenizer(tmp_path / "model")
    assert all(tokenizer.decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n<think>\n") for row in rows)
    assert all(0 < len(row["completion_ids"]) == len(row["logprobs"]) == row["thought_tokens"] <= 9 for row in rows)
    assert {row["text"] for row in rows} == {""}
    assert any(row["thought"] for row in rows)
    assert {row["messages"][0]["content"] for row in rows} == {"Be brief."}
    metrics = metrics_of(result)
    assert (metrics["unfinished_thought_share"], metrics["mean_length"]) == (1.0, 0.0)
    assert any("their thoughts do not end within 9 tokens" in warning for warning in result.warnings)

    params = JudgeParams(objective=OBJECTIVE, judging=JudgingSettings(), max_tokens=48, prompts_per_part=4)
    judged = thinking.finish(thinking.config(params, chat=chat, rollouts=result.artifact))
    assert judged.artifact is not None, judged.error
    judgements = read_parts([tmp_path / judged.artifact.path], JUDGEMENT)
    empty = [row for row in read_rows(tmp_path / judged.artifact.path / "canaries.parquet", CANARY) if not row["text"]]
    assert len(judgements) == len(rows)
    by_prompt = {row["prompt_id"]: row["raw_reward"] for row in judgements}
    assert empty
    assert all(by_prompt[row["prompt_id"]] == pytest.approx(row["reward"], abs=1e-5) for row in empty)


def test_log_probabilities_that_are_no_numbers_stop_the_run(run: Run, first: ArtifactRef, tmp_path: Path) -> None:
    break_weights(Path(shutil.copytree(run.root / "model", tmp_path / "model")))
    shutil.copytree(run.root / first.path, tmp_path / first.path)
    broken = Run(tmp_path, write_artifact(tmp_path, "model", Stage.FETCH))
    result = broken.finish(broken.config(GenerateParams(generation=GENERATION), prompts=first))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "the base model gives a token the log-probability nan: its weights are damaged" in result.error.message
    assert result.artifact is None


def test_thoughts_that_cannot_be_switched_off_are_refused(run: Run, first: ArtifactRef, tmp_path: Path) -> None:
    shutil.copytree(run.root / "model", tmp_path / "model")
    set_template(OPENS_THOUGHT)(tmp_path / "model")
    shutil.copytree(run.root / first.path, tmp_path / first.path)
    thinking = Run(tmp_path, write_artifact(tmp_path, "model", Stage.FETCH))
    result = thinking.finish(thinking.config(GenerateParams(generation=GENERATION), prompts=first))
    assert result.exit_code == ExitCode.BAD_CONFIG
    assert result.error is not None
    assert 'spec.model.chat.thinking is "Off"' in result.error.message


def test_a_prompt_beyond_the_context_window_is_named(run: Run, first: ArtifactRef) -> None:
    settings = GENERATION.model_copy(update={"max_tokens": 500})
    result = run.finish(run.config(GenerateParams(generation=settings), iteration=3, prompts=first))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "prompt 000-00000 has" in result.error.message
