"""The train stage from rollouts and judgements to an adapter: interrupted, damaged, spread over processes, continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from dynalign_contract.config import Policy, StageConfig, TrainParams
from dynalign_contract.errors import BadConfigError, BadInputError, TerminatedError, TrainingFailedError, UnfitError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import BATCH_FILE, MANIFEST
from dynalign_contract.manifest import read_manifest
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.pod_paths import Variable
from dynalign_contract.records import BATCH, read_rows
from dynalign_contract.result import StageResult
from dynalign_contract.settings import DType, KlSettings, LoraSettings, TrainingBackend
from dynalign_contract.stages import Stage
from dynalign_trainer.models.plain_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from dynalign_trainer.runtime.context import StageOutput
from dynalign_trainer.train import stage as train
from dynalign_trainer.train.checkpoints import find_checkpoint, seal_checkpoint, step_of
from dynalign_trainer.train.job import JOB_FILE, REPORTS_FILE, read_job, read_reports
from dynalign_trainer.train.policy.lora import check_adapter
from dynalign_trainer.train.processes import launch
from lab.processes import free_port
from support.planted import plant_pickle, plant_torch_file
from support.train_stage import (
    CANDIDATES,
    EPOCHS,
    PROMPTS,
    SETTINGS,
    STEPS,
    a_run,
    farthest,
    rollouts_of,
    train_on,
    weights,
)
from support.training_data import (
    StopAfterTwoSteps,
    TrainingRun,
    make_judgements,
    write_artifact,
)

pytestmark = pytest.mark.slow

TERMINATED = int(ExitCode.TERMINATED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRun, StageOutput[TrainParams]]:
    """A run that nothing disturbed."""
    run = a_run(tmp_path_factory.mktemp("whole"))
    return run, train_on(run, rollouts_of(run))


def test_leaves_an_adapter_a_batch_and_metrics(whole: tuple[TrainingRun, StageOutput[TrainParams]]) -> None:
    run, output = whole
    iteration = run.root / "iterations/000"
    assert set(output.files) == {ADAPTER_WEIGHTS, ADAPTER_CONFIG}
    assert output.metrics[TrainMetrics.trained_steps] == STEPS
    assert (output.metrics[TrainMetrics.peak_memory] or 0) > 100 * 2**20, "a Python process with torch has more"
    assert output.metrics[TrainMetrics.mfu] is None, "the peak of a CPU is not known"
    assert output.metrics[TrainMetrics.rejected_share] == 0
    assert output.metrics[TrainMetrics.logprob_difference] == pytest.approx(0.016, abs=0.004)  # E|x| of N(0, 0.02)
    assert (output.metrics[TrainMetrics.norm_change] or 0) > 0
    assert (output.metrics[TrainMetrics.kl] or 0) > 0
    assert str(run.root) not in (iteration / "policy" / ADAPTER_CONFIG).read_text()
    adapter = json.loads((iteration / "policy" / ADAPTER_CONFIG).read_text())
    assert adapter["r"] == 4
    batch = read_manifest(iteration / "batch")
    assert batch is not None
    assert batch.files[0].rows == PROMPTS * CANDIDATES
    tokens = sum(len(row["completion_ids"]) for row in read_rows(iteration / "batch" / BATCH_FILE, BATCH))
    assert output.metrics[TrainMetrics.loss_tokens] == EPOCHS * tokens
    assert not (iteration / "checkpoints").exists()
    assert output.training is not None
    assert output.training.backend is TrainingBackend.PACKED
    assert set(output.training.target_modules) == set(adapter["target_modules"])


@pytest.mark.parametrize("backend", [TrainingBackend.PACKED, TrainingBackend.TRL])
def test_training_that_diverges_ends_the_stage_with_what_to_lower(tmp_path: Path, backend: TrainingBackend) -> None:
    """Two ratios of each row overflow while its mean stays within the band, so answers of negative advantage do."""
    run = a_run(tmp_path, backend=backend)
    rollouts = rollouts_of(run, prompts=2)
    for row in rollouts:
        first, second, *rest = row["logprobs"]
        row["logprobs"] = [first - 1000, second + 1000, *rest]
    with pytest.raises(UnfitError, match=r"is (inf|nan): training has diverged\. Lower spec\.training\.learningRate"):
        train_on(run, rollouts)


@dataclass(frozen=True)
class StoppedRun:
    """A run that was stopped after two steps, with a checkpoint of each."""

    run: TrainingRun
    config: StageConfig
    kept: Path
    """Its iteration as the stop left it."""

    @classmethod
    def of(cls, root: Path, backend: TrainingBackend) -> "StoppedRun":
        run = a_run(root / "run", checkpoint_steps=1, backend=backend)
        rollouts = rollouts_of(run)
        config = run.write(rollouts, make_judgements(rollouts))
        context = run.context(config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "_POLL_SECONDS", 0.02)  # these steps are short
            with pytest.raises(TerminatedError):
                train.run(replace(context, telemetry=StopAfterTwoSteps(context.stopping)))
        assert not (context.folder / ADAPTER_WEIGHTS).exists()
        return cls(run, config, shutil.copytree(run.root / "iterations", root / "kept"))

    def checkpoints(self) -> list[Path]:
        """The checkpoints as the stop left them, the last one at the end; whatever was done to them is undone."""
        shutil.rmtree(self.run.root / "iterations")
        shutil.copytree(self.kept, self.run.root / "iterations")
        found = (self.run.root / "iterations/000/checkpoints").glob("checkpoint-*")
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))

    def seal(self, checkpoint: Path) -> None:
        """Describe the files of a checkpoint as they are now."""
        (checkpoint / MANIFEST).unlink()
        seal_checkpoint(checkpoint, read_job(checkpoint.parent / JOB_FILE))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[TrainingBackend, StoppedRun]:
    backends = (TrainingBackend.PACKED, TrainingBackend.TRL)
    return {backend: StoppedRun.of(tmp_path_factory.mktemp("stopped"), backend) for backend in backends}


@pytest.mark.parametrize(("backend", "tolerance"), [(TrainingBackend.PACKED, 0), (TrainingBackend.TRL, 1e-4)])
def test_stopped_and_with_its_last_checkpoint_planted_it_ends_with_the_same_adapter(
    whole: tuple[TrainingRun, StageOutput[TrainParams]],
    stopped: dict[TrainingBackend, StoppedRun],
    tmp_path: Path,
    backend: TrainingBackend,
    tolerance: float,
) -> None:
    """Bit for bit as the undisturbed run, which was Packed; TRL, disturbed or not, differs in the order of sums."""
    found = stopped[backend]
    checkpoints = found.checkpoints()
    assert len(checkpoints) == 2
    assert not list(checkpoints[0].rglob("*.py"))
    for path in [path for path in checkpoints[-1].rglob("*") if path.is_file()]:
        plant_pickle(path, tmp_path / "mark")
    found.seal(checkpoints[-1])

    output = train.run(found.run.context(found.config))
    assert output.metrics[TrainMetrics.trained_steps] == STEPS
    assert farthest(weights(found.run), weights(whole[0])) <= tolerance
    assert not (tmp_path / "mark").exists(), "a planted file ran"


@pytest.mark.parametrize("backend", [TrainingBackend.PACKED, TrainingBackend.TRL])
def test_a_checkpoint_that_would_not_be_whole_before_sigkill_is_not_begun(
    whole: tuple[TrainingRun, StageOutput[TrainParams]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: TrainingBackend,
) -> None:
    """With checkpoints by time, one a step, and a grace period that is over at once."""
    run = a_run(tmp_path, checkpoint_steps=None, checkpoint_minutes=1e-4, backend=backend)
    rollouts = rollouts_of(run)
    config = run.write(rollouts, make_judgements(rollouts))
    context = run.context(config)
    monkeypatch.setenv(Variable.GRACE_SECONDS, "0")
    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.02)
    with pytest.raises(TerminatedError):
        train.run(replace(context, telemetry=StopAfterTwoSteps(context.stopping)))
    work = run.root / "iterations/000/checkpoints"
    taken = len(read_reports(work))
    assert taken < STEPS
    assert step_of(find_checkpoint(work) or work) == taken - 1, "the checkpoint of the step before"

    monkeypatch.delenv(Variable.GRACE_SECONDS)
    train.run(run.context(config))
    assert farthest(weights(run), weights(whole[0])) <= (0 if backend is TrainingBackend.PACKED else 1e-4)


def test_transformers_own_files_of_a_checkpoint_run_no_code(
    stopped: dict[TrainingBackend, StoppedRun], tmp_path: Path
) -> None:
    """Its scheduler and random state are in PyTorch's format, of which it opens plain values only."""
    found = stopped[TrainingBackend.TRL]
    for checkpoint in found.checkpoints():
        for name in ("scheduler.pt", "rng_state.pth"):
            plant_torch_file(checkpoint / name, tmp_path / "mark")
        found.seal(checkpoint)
    with pytest.raises(TrainingFailedError, match=r"weights_only|Weights only"):
        train.run(found.run.context(found.config))
    assert not (tmp_path / "mark").exists()


def test_two_processes_train_like_one(whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path) -> None:
    run = a_run(tmp_path, gpus_per_node=2)
    output = train_on(run, rollouts_of(run))
    assert output.metrics[TrainMetrics.loss] == pytest.approx(whole[1].metrics[TrainMetrics.loss], abs=1e-5)
    assert farthest(weights(run), weights(whole[0])) < 1e-4


def start_node(run: TrainingRun, rank: int, port: int) -> subprocess.Popen[bytes]:
    """One node's stage, as its pod would start it."""
    arguments = {"config": run.root / "stage.json", "root": run.root, "result": run.root / f"result-{rank}"}
    command = [sys.executable, "-m", "dynalign_trainer.main", *(f"--{name}={path}" for name, path in arguments.items())]
    environment = {**os.environ, "JOB_COMPLETION_INDEX": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen([*command, f"--coordinator=127.0.0.1:{port}"], env=environment)


def a_gang_run(root: Path) -> TrainingRun:
    """A run of two nodes, whose stage is configured."""
    run = a_run(root, nodes=2)
    rollouts = rollouts_of(run)
    (run.root / "stage.json").write_text(run.write(rollouts, make_judgements(rollouts)).to_json())
    return run


def start_gang(run: TrainingRun) -> list[subprocess.Popen[bytes]]:
    """Both nodes, rank 0 first in the list and last to come."""
    port = free_port()
    second, first = start_node(run, 1, port), start_node(run, 0, port)
    return [first, second]


def test_two_nodes_train_like_one_and_only_the_first_one_writes(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path
) -> None:
    run = a_gang_run(tmp_path)
    assert [node.wait(300) for node in start_gang(run)] == [0, 0]
    results = [StageResult.decode((run.root / f"result-{rank}").read_bytes()) for rank in (0, 1)]
    assert results[0].artifact is not None
    assert results[1].artifact is None
    assert farthest(weights(run), weights(whole[0])) < 1e-4
    assert start_node(run, 1, free_port()).wait(60) == 0, "what is done is skipped by every node"


def test_a_node_that_is_stopped_stops_the_gang_which_then_goes_on(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path
) -> None:
    run = a_gang_run(tmp_path)
    alone = start_node(run, 1, free_port())
    assert signal_when(alone, lambda: ps_finds(alone.pid, "dynalign_trainer.train.processes.agent")) == TERMINATED
    first, second = start_gang(run)
    steps = run.root / "iterations/000/checkpoints" / REPORTS_FILE
    assert signal_when(second, lambda: steps.exists() and len(steps.read_text().splitlines()) >= 2) == TERMINATED
    assert first.wait(60) == TERMINATED
    assert list((run.root / "iterations/000/checkpoints").glob("checkpoint-*"))
    assert [node.wait(300) for node in start_gang(run)] == [0, 0]
    assert farthest(weights(run), weights(whole[0])) < 1e-4


def signal_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> int:
    """Send SIGTERM once the process is `ready`; returns how it ended."""
    end = time.monotonic() + 300
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)  # between two looks at it
    process.send_signal(signal.SIGTERM)
    return process.wait(120)


def ps_finds(pid: int, module: str) -> bool:
    """Whether a child of the process runs this module."""
    return any(module in process.cmdline() for process in psutil.Process(pid).children(recursive=True))


def test_the_next_iteration_continues_the_adapter_and_rejects_what_the_sampler_did_not_write(
    whole: tuple[TrainingRun, StageOutput[TrainParams]],
) -> None:
    first = whole[0]
    adapter = write_artifact(first.root, "iterations/000/policy", Stage.TRAIN, iteration=0)
    run = replace(first, iteration=1, policy=Policy(version="iteration-000", adapter=adapter)).with_settings(
        prompts_per_step=2, epochs=1, learning_rate=1e-5
    )
    rollouts = rollouts_of(run, prompts=4)
    rollouts[0]["logprobs"] = [value - 2.0 for value in rollouts[0]["logprobs"]]
    output = train_on(run, rollouts)
    assert output.metrics[TrainMetrics.trained_steps] == 2
    assert output.metrics[TrainMetrics.rejected_share] == pytest.approx(1 / 16)
    # Two Adam steps of 1e-5 from where the first iteration ended.
    assert 0 < farthest(weights(run), weights(first)) <= 2.1e-5


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_an_adapter_that_is_trained_in_bfloat16_keeps_every_digit(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], zero_stage: int
) -> None:
    """Steps this small leave it where it was, which bfloat16 alone could not say."""
    first = whole[0]
    adapter = write_artifact(first.root, "iterations/000/policy", Stage.TRAIN, iteration=0)
    run = replace(
        first, iteration=10 + zero_stage, policy=Policy(version="iteration-000", adapter=adapter)
    ).with_settings(learning_rate=1e-9, epochs=1, zero_stage=zero_stage, kl=KlSettings())
    rollouts = rollouts_of(run, prompts=2)
    config = run.write(rollouts, make_judgements(rollouts))
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"dtype": DType.BFLOAT16})})
    assert train.run(run.context(config)).metrics[TrainMetrics.trained_steps] == 2
    assert farthest(weights(run), weights(first)) < 1e-7
    assert farthest({n: v.bfloat16().float() for n, v in weights(first).items()}, weights(first)) > 1e-5


def test_equal_rewards_leave_a_fresh_adapter_without_effect(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    rollouts = rollouts_of(run, prompts=2)
    output = train_on(run, rollouts, [0.5] * len(rollouts))
    assert output.metrics[TrainMetrics.trained_steps] == 0
    assert output.metrics[TrainMetrics.dropped_groups_share] == 1
    assert output.metrics[TrainMetrics.noisy_groups_share] is None
    assert all(value.abs().max() == 0 for name, value in weights(run).items() if "lora_B" in name)


def test_a_sampler_that_is_not_the_trainer_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    rollouts = rollouts_of(run, prompts=2)
    foreign = [row | {"logprobs": [value - 2.0 for value in row["logprobs"]]} for row in rollouts]
    with pytest.raises(UnfitError, match=r"spec\.training\.ratioBand"):
        train_on(run, foreign)


def test_an_adapter_that_does_not_fit_is_refused_before_anything_starts(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path
) -> None:
    policy = whole[0].root / "iterations/000/policy"
    check_adapter(policy, SETTINGS.adapter)
    with pytest.raises(BadConfigError, match=r"spec\.training\.lora\.rank is 8 but .* has 4"):
        check_adapter(policy, LoraSettings(rank=8, alpha=8))
    with pytest.raises(BadConfigError, match=r"spec\.training\.lora\.targetModules is \['q_proj'\]"):
        check_adapter(policy, LoraSettings(rank=4, alpha=8, target_modules=("q_proj",)))
    with pytest.raises(BadInputError, match=r"adapter_config\.json is not the configuration of a LoRA adapter"):
        check_adapter(tmp_path, SETTINGS.adapter)
