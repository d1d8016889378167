"""A training that was stopped goes on with another number of processes, from the step that it had reached."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import StageConfig
from dynalign_contract.errors import TerminatedError
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.model_shape import shape_of
from dynalign_contract.settings import OptimizerOffload, TrainingBackend, TrainingMethod, TrainingSettings
from dynalign_contract.training_memory import training_memory
from dynalign_operator.estimate.shapes import known_configs
from dynalign_trainer.train import stage as train
from dynalign_trainer.train.checkpoints import find_checkpoint, step_of
from dynalign_trainer.train.processes import launch
from support.train_stage import a_run, rollouts_of
from support.training_data import StopAfterTwoSteps, TrainingRun, make_judgements

pytestmark = pytest.mark.slow

PROMPTS = 4
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """How a training is stopped and goes on, beside the settings that both have."""

    before: dict[str, Any]
    after: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self, root: Path, division: dict[str, Any]) -> tuple[TrainingRun, StageConfig]:
        run = a_run(root, checkpoint_steps=1, epochs=2, **{**self.settings, **division})
        rollouts = rollouts_of(run, PROMPTS)
        return run, run.write(rollouts, make_judgements(rollouts))


ONE, TWO, THREE = ({"gpus_per_node": count} for count in (1, 2, 3))
CASES = {
    "lora-zero2": Case(TWO, ONE | {"tokens_per_micro_batch": 64}),
    "full-zero3": Case(TWO, THREE, settings={"zero_stage": 3, "method": TrainingMethod.FULL}),
    "trl": Case(TWO, ONE | {"micro_batch": 4}, settings={"backend": TrainingBackend.TRL}),
}


def tensors(run: TrainingRun) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = (run.root / "iterations/000/policy").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_stopped_training_goes_on_with_another_number_of_processes(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Moments and steps of Adam too: with others, every weight would end where an undisturbed training has none."""
    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(train, "count_cores", lambda: 3)
    whole, config = case.config(tmp_path / "whole", case.after)
    assert train.run(whole.context(config)).metrics[TrainMetrics.trained_steps] == 2 * PROMPTS

    run, config = case.config(tmp_path / "run", case.before)
    context = run.context(config)
    with pytest.raises(TerminatedError):
        train.run(replace(context, telemetry=StopAfterTwoSteps(context.stopping)))
    checkpoint = find_checkpoint(run.root / "iterations/000/checkpoints")
    assert checkpoint is not None
    assert 2 <= step_of(checkpoint) < 2 * PROMPTS

    _, config = case.config(tmp_path / "run", case.after)
    with caplog.at_level(logging.INFO, "dynalign.train"):
        assert train.run(run.context(config)).metrics[TrainMetrics.trained_steps] == 2 * PROMPTS
    assert f"going on from {checkpoint}" in caplog.text
    before, after = tensors(whole), tensors(run)
    assert before.keys() == after.keys()
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-4


def test_every_kind_of_optimiser_state_is_divided_among_other_processes_exactly(tmp_path: Path) -> None:
    """Weights are read bit for bit; the step after them is that which the processes that wrote them took."""
    written = visit(tmp_path, 2)
    assert written
    for processes in (3, 1):
        found = visit(tmp_path, processes)
        assert found.keys() == written.keys()
        for name, far in found.items():
            assert far["read"] == 0, name
            assert far["next"] < far["moved"] / 100, name
            if name.endswith("CPU"):
                assert far["held"] == pytest.approx(host_bytes(name, processes), rel=0.2), name


def host_bytes(name: str, processes: int) -> float:
    """Bytes a weight of the machine's memory that a process needs by the formula."""
    shape = shape_of(known_configs()["qwen/qwen3-8b"])
    training = TrainingSettings(
        method=TrainingMethod.FULL, zero_stage=int(name[5]), optimizer_offload=OptimizerOffload.CPU
    )
    memory = training_memory(training, shape, processes=processes, value_bytes=2, tokens=1, recomputes=True)
    return memory.host / shape.parameters


def visit(folder: Path, processes: int) -> dict[str, dict[str, float]]:
    """Have so many processes write or read the checkpoints in a folder."""
    ranks = launch.Processes(count=processes, threads=1)
    environment = {**os.environ, **launch.worker_environment(ranks, launch.SINGLE_NODE, gpus=0)}
    torchrun = ["torch.distributed.run", *launch.SINGLE_NODE.arguments, "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", "support.other_ranks", str(folder)],
        env=environment | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found
