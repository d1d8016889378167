"""What the train stage and its workers do before the first step: at the same time, and however it ends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynalign_contract.errors import BadInputError, CorruptArtifactError, TerminatedError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.result import StageResult
from dynalign_trainer.models.plain_adapter import ADAPTER_WEIGHTS
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from dynalign_trainer.train import stage as train
from dynalign_trainer.train.batch import build_batch
from support.train_stage import EPOCHS, a_run, farthest, rollouts_of, train_on, weights
from support.training_data import make_judgements

pytestmark = pytest.mark.slow


def test_processes_that_spread_the_model_keep_a_policy_that_nothing_teaches(tmp_path: Path) -> None:
    """All have loaded the model when they learn it; what is written is not their shares of ZeRO-3."""
    one, two = a_run(tmp_path / "one"), a_run(tmp_path / "two", zero_stage=3, gpus_per_node=2)
    for run in (one, two):
        rollouts = rollouts_of(run, prompts=2)
        output = train_on(run, rollouts, [0.5] * len(rollouts))
        assert output.metrics[TrainMetrics.trained_steps] == 0
    assert farthest(weights(two), weights(one)) == 0


_FORKS = """
from dynalign_trainer.train.processes.forked import allow_fork
import dynalign_trainer.train.packed.run
allow_fork()
from dynalign_trainer.main import main
main()
"""


def test_a_worker_that_is_forked_before_the_batch_is_built_trains_as_any_other(tmp_path: Path) -> None:
    """The stage serves its metrics from a thread by then, as every stage does."""
    plain, forking = a_run(tmp_path / "plain"), a_run(tmp_path / "forking")
    rollouts = rollouts_of(plain, prompts=2)
    train_on(plain, rollouts)
    (forking.root / "stage.json").write_text(forking.write(rollouts, make_judgements(rollouts)).to_json())
    files = {"config": forking.root / "stage.json", "root": forking.root, "result": forking.root / "result"}
    arguments = [f"--{name}={path}" for name, path in files.items()]
    subprocess.run([sys.executable, "-c", _FORKS, *arguments], check=True, timeout=300)
    assert farthest(weights(forking), weights(plain)) < 1e-6


def workers() -> list[psutil.Process]:
    """Every process below this one that has to do with a training."""
    return [
        process for process in psutil.Process().children(recursive=True) if "train.processes" in str(process.cmdline())
    ]


@pytest.mark.parametrize("ending", ["error", "stop"])
def test_the_batch_is_built_beside_the_workers_who_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """By an error of its own, which is the stage's, or because of a SIGTERM that came meanwhile."""
    run = a_run(tmp_path)
    rollouts = rollouts_of(run, prompts=2)
    foreign = rollouts if ending == "stop" else [row | {"policy": "iteration-007"} for row in rollouts]
    context = run.context(run.write(foreign, make_judgements(rollouts)))
    beside: list[psutil.Process] = []

    def build(*args: Any, **settings: Any) -> Any:
        beside.extend(workers())
        if ending == "stop":
            context.stopping.set()
        return build_batch(*args, **settings)

    monkeypatch.setattr(train, "build_batch", build)
    expected, told = (TerminatedError, "SIGTERM") if ending == "stop" else (BadInputError, "iteration-007")
    with pytest.raises(expected, match=told):
        train.run(context)
    assert beside
    psutil.wait_procs(beside, timeout=60)
    assert not workers()
    assert not (context.folder / ADAPTER_WEIGHTS).exists()

    monkeypatch.undo()
    output = train.run(run.context(run.write(rollouts, make_judgements(rollouts))))
    assert output.metrics[TrainMetrics.trained_steps] == 2 * EPOCHS


@pytest.mark.parametrize("damage", ["a byte", "the end"])
def test_a_damaged_model_is_the_reason_though_the_workers_load_it_meanwhile(tmp_path: Path, damage: str) -> None:
    """They may train on what they can load, or fail at what they cannot: neither counts."""
    run = a_run(tmp_path)
    rollouts = rollouts_of(run, prompts=2)
    (run.root / "stage.json").write_text(run.write(rollouts, make_judgements(rollouts)).to_json())
    weights_file = run.root / "model/model.safetensors"
    data = bytearray(weights_file.read_bytes())
    data[-4] ^= 1
    weights_file.write_bytes(data if damage == "a byte" else data[:-1000])
    code = run_stage(run.root / "stage.json", run.root, run.root / "result", Place())
    result = StageResult.decode((run.root / "result").read_bytes())
    assert (code, result.error and result.error.reason) == (ExitCode.BAD_INPUT, CorruptArtifactError.reason)
    assert result.error is not None
    assert "model.safetensors" in result.error.message
    assert not workers()
