"""Several engines in one pod: what they say and write is what one engine does, and none of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynalign_contract.config import GenerateParams, JudgeParams, Policy, StageConfig
from dynalign_contract.errors import BadInputError, TerminatedError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import PROMPTS_FILE, part_name
from dynalign_contract.phases import Phase
from dynalign_contract.records import PROMPT, write_rows
from dynalign_contract.result import ArtifactRef, Outcome, StageResult
from dynalign_contract.settings import CanarySettings, EngineSettings, GenerationSettings, JudgingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.replica_messages import Add, Call
from dynalign_trainer.models.replicas import Replicas
from dynalign_trainer.models.replicated_engine import ReplicatedEngine
from dynalign_trainer.runtime.telemetry import Telemetry
from lab.stage_attempts import attempt
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import StageRun, held_out_prompts, rule_objective, write_random_adapter
from support.odd_models import break_weights
from support.stage_processes import command_of
from support.training_data import write_artifact

pytestmark = pytest.mark.slow

BASE = Policy()
ADAPTED, WHOLE, BROKEN = (
    Policy(version=name, adapter=ArtifactRef(path=name, digest="sha256:" + "0" * 64))
    for name in ("adapted", "whole", "broken")
)
QUESTIONS = ("Why is the sky blue?", "What is a good life?", "How do I bake bread?", "Who wrote this?")
OBJECTIVE = rule_objective()
GENERATION = GenerationSettings(candidates=3, max_tokens=24, prompts_per_part=1)
REPLICA = "dynalign_trainer.models.replica"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """An engine of its own and one of several compute with the same number of threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@dataclass(frozen=True)
class Site:
    """A folder with a model and three policies."""

    root: Path

    def start(self, policies: Sequence[Policy], replicas: int) -> Engine:
        params = GenerateParams(generation=GENERATION)
        engine = EngineSettings(max_length=256, replicas=replicas)
        config = StageConfig(run="test", iteration=0, engine=engine, params=params)
        names = ("model", ADAPTED.version, WHOLE.version, BROKEN.version)
        return start_engine(attempt(config, self.root, inputs={name: self.root / name for name in names}), policies)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    model = write_tiny_qwen3(root / "model")
    write_random_adapter(model, root / ADAPTED.version)
    write_tiny_qwen3(root / WHOLE.version, seed=1)
    break_weights(write_tiny_qwen3(root / BROKEN.version))
    return Site(root)


@pytest.fixture(scope="module")
def pair(site: Site) -> tuple[Engine, Engine]:
    """A single engine, and two that are fed together."""
    policies = [BASE, ADAPTED]
    return site.start(policies, 1), site.start(policies, 2)


@pytest.fixture(scope="module")
def prompts(pair: tuple[Engine, Engine]) -> list[list[int]]:
    return [pair[0].chat.encode([{"role": "user", "content": text}]) for text in QUESTIONS]


def test_two_engines_say_what_one_says_to_the_last_bit(pair: tuple[Engine, Engine], prompts: list[list[int]]) -> None:
    asked: list[Callable[[Engine, Policy], object]] = [
        lambda engine, policy: engine.sample(
            prompts, Sampling(1.0, max_tokens=12, n=2), policy=policy, seeds=[1, 2, 3, 4]
        ),
        lambda engine, policy: engine.score_next(prompts, [5, 6, 7], policy=policy),
        lambda engine, policy: engine.score_continuations(prompts, prompts[::-1], policy=policy),
        lambda engine, _policy: engine.cached_tokens,
    ]
    for policy in (BASE, ADAPTED, BASE):
        for engine in pair:
            engine.forget_prefixes()
        for ask in asked:
            assert ask(pair[0], policy) == ask(pair[1], policy)


def test_the_next_stage_of_a_rollout_finds_the_engines_and_none_of_the_prefixes(
    pair: tuple[Engine, Engine], prompts: list[list[int]]
) -> None:
    for engine in pair:
        engine.score_next(prompts, [5], policy=BASE)
    telemetries = Telemetry(), Telemetry()
    later = [engine.for_stage(telemetry) for engine, telemetry in zip(pair, telemetries, strict=True)]
    scores = [engine.score_next(prompts, [5], policy=ADAPTED) for engine in later]
    assert scores[0] == scores[1]
    assert later[0].cached_tokens == later[1].cached_tokens
    assert all(telemetry.useful.seconds > 0 for telemetry in telemetries)
    assert all(Phase.FIRST_STEP in telemetry.phases.seconds for telemetry in telemetries)


@pytest.fixture
def divided(pair: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The two engines divide calls and groups between them, as on GPUs; what each of them is asked is listed."""
    two, asked = pair[1], list[tuple[int, str]]()
    assert isinstance(two, ReplicatedEngine)
    send = two._replicas.send

    def listed(index: int, order: Any) -> None:
        if isinstance(order, Add | Call):
            asked.append((index, type(order).__name__))
        send(index, order)

    monkeypatch.setattr(two._replicas, "send", listed)
    monkeypatch.setattr(two._replicas, "slots", 100)
    monkeypatch.setattr(two, "slots", 100)
    return asked


def test_on_gpus_each_call_is_divided_among_the_engines(
    pair: tuple[Engine, Engine], divided: list[tuple[int, str]], prompts: list[list[int]]
) -> None:
    one, two = pair
    sampling, seen = Sampling(1.0, max_tokens=12, n=2), list[tuple[int, int]]()
    drawn = [
        engine.sample(
            prompts,
            sampling,
            policy=ADAPTED,
            seeds=[1, 2, 3, 4],
            watch=lambda done, total, _: seen.append((done, total)),
        )
        for engine in pair
    ]
    assert [[s.token_ids for s in group] for group in drawn[0]] == [[s.token_ids for s in group] for group in drawn[1]]
    assert seen[-1] == (8, 8)
    scores = [engine.score_next(prompts, [5, 6], policy=ADAPTED) for engine in pair]
    assert scores[1] == [pytest.approx(row, abs=1e-5) for row in scores[0]]
    found = [engine.score_continuations(prompts, prompts[::-1], policy=ADAPTED) for engine in pair]
    assert [one.logprob for one in found[1]] == pytest.approx([one.logprob for one in found[0]], abs=1e-4)
    assert divided == [(0, "Add"), (1, "Add"), (0, "Call"), (1, "Call"), (0, "Call"), (1, "Call")]
    with pytest.raises(BadInputError, match="prompt 4 of 5 has 300 tokens"):
        two.score_next([*prompts, [1] * 300], [5], policy=BASE)
    assert one.max_length == two.max_length


def test_what_is_given_up_leaves_the_engines_ready_for_the_next_question(
    pair: tuple[Engine, Engine], divided: list[tuple[int, str]], prompts: list[list[int]]
) -> None:
    two = pair[1]

    def stop(_done: int, _total: int, _rate: float) -> None:
        raise TerminatedError("stopped")

    asked: list[Callable[[], object]] = [
        lambda: two.sample(prompts, Sampling(1.0, max_tokens=90), policy=BASE, seeds=[1, 2, 3, 4], watch=stop),
        lambda: two.score_next(prompts, [5], policy=BASE, watch=stop),
    ]
    for ask in asked:
        with pytest.raises(TerminatedError):
            ask()
        assert len(two.sample(prompts, Sampling(1.0, max_tokens=4), policy=BASE, seeds=[1, 2, 3, 4])) == len(prompts)
    assert divided


def test_whole_weights_take_turns_and_an_engines_error_is_the_stages(site: Site, prompts: list[list[int]]) -> None:
    one, two = (site.start([WHOLE, BROKEN], replicas) for replicas in (1, 2))
    refusal = "the policy broken gives a token the log-probability nan: its training has diverged"
    for policy in (WHOLE, BASE):
        for engine in (one, two):
            engine.forget_prefixes()
        assert one.score_next(prompts, [5, 6], policy=policy) == two.score_next(prompts, [5, 6], policy=policy)
        with pytest.raises(BadInputError, match=refusal):
            two.sample(prompts, Sampling(1.0, max_tokens=4), policy=BROKEN, seeds=[1, 2, 3, 4])


@pytest.fixture
def stages(site: Site, tmp_path: Path) -> StageRun:
    return StageRun.of(tmp_path, site.root / "model")


def write_prompts(stages: StageRun) -> ArtifactRef:
    write_rows(stages.root / "prompts" / PROMPTS_FILE, held_out_prompts(OBJECTIVE, 6), PROMPT)
    return write_artifact(stages.root, "prompts", Stage.PROMPTS)


def with_replicas(config: StageConfig, replicas: int) -> StageConfig:
    return config.model_copy(update={"engine": config.engine.model_copy(update={"replicas": replicas})})


def files_of(stages: StageRun, result: StageResult) -> Mapping[str, bytes]:
    """The rows that a stage has left; its manifest also says how long it took."""
    assert result.outcome is Outcome.SUCCEEDED, result.error
    assert result.artifact is not None
    folder = stages.root / result.artifact.path
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def leaves_the_same(stages: StageRun, alone: StageConfig) -> ArtifactRef:
    """Run a stage with one engine, then with two; the artifact of these."""
    several = with_replicas(alone, 2)
    assert several.digest == alone.digest, "a run may change the number between two attempts"
    expected = files_of(stages, stages.execute(alone))
    assert len(expected) >= 3
    (stages.root / alone.folder).rename(stages.root / f"{alone.stage}-alone")
    result = stages.execute(several)
    assert files_of(stages, result) == expected
    assert result.artifact is not None
    return result.artifact


def test_generate_and_judge_leave_the_files_of_a_single_engine(
    stages: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[int, str]] = set()
    send = Replicas.send

    def listed(replicas: Replicas, index: int, order: Any) -> None:
        asked.add((index, type(order).__name__))
        send(replicas, index, order)

    monkeypatch.setattr(Replicas, "send", listed)
    generate = GenerateParams(generation=GENERATION)
    rollouts = leaves_the_same(stages, stages.config(generate, {"prompts": write_prompts(stages)}))
    assert {(0, "Add"), (1, "Add")} <= asked, "parts are sampled side by side"
    judging = JudgingSettings(min_mass=0.0, canaries=CanarySettings(prompts=2, injections=2))
    judge = JudgeParams(objective=OBJECTIVE, judging=judging, max_tokens=64, prompts_per_part=2)
    leaves_the_same(stages, stages.config(judge, {"rollouts": rollouts}))
    assert (0, "Call") in asked


def start(stages: StageRun, generation: GenerationSettings) -> tuple[StageConfig, "subprocess.Popen[bytes]"]:
    """A generate stage with two engines, in the process that a pod would have."""
    config = with_replicas(stages.config(GenerateParams(generation=generation), {"prompts": write_prompts(stages)}), 2)
    (stages.root / "stage.json").write_text(config.to_json())
    command = [sys.executable, "-m", "dynalign_trainer.main", f"--config={stages.root / 'stage.json'}"]
    return config, subprocess.Popen([*command, f"--root={stages.root}", f"--result={stages.root / 'result'}"])


def engines_of(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if REPLICA in command_of(child)]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None, "the stage has ended"
        time.sleep(0.02)  # between two looks


def test_an_engine_that_is_killed_ends_the_stage_with_a_sentence(stages: StageRun) -> None:
    long = GENERATION.model_copy(update={"max_tokens": 400})
    config, process = start(stages, long)
    wait_until((stages.root / config.folder / part_name(0)).exists, process)
    engines = engines_of(process)
    assert len(engines) == 2
    engines[1].send_signal(signal.SIGKILL)
    assert process.wait() == 1
    result = StageResult.decode((stages.root / "result").read_bytes())
    assert result.error is not None
    assert result.error.reason == "EngineLost"
    assert f"engine 2 of 2 of this stage (process {engines[1].pid}) was killed by signal 9" in result.error.message
    assert "Its last words: " in result.error.message
    psutil.wait_procs(engines, timeout=60)
    assert not any(engine.is_running() for engine in engines)
    assert (stages.root / config.folder / part_name(0)).exists(), "finished parts are kept"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, ExitCode.TERMINATED)])
def test_the_engines_end_with_the_stage(stages: StageRun, number: signal.Signals, code: int) -> None:
    _, process = start(stages, GENERATION)
    wait_until(lambda: len(engines_of(process)) == 2, process)
    engines = engines_of(process)
    process.send_signal(number)
    assert process.wait() == code
    psutil.wait_procs(engines, timeout=60)
    assert not any(engine.is_running() for engine in engines)
