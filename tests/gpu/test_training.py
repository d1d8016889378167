"""The train stage on a GPU: it goes on from where it was stopped, with each kind of optimiser state."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import TerminatedError
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.settings import LoraSettings, TrainingBackend, TrainingMethod, TrainingSettings
from dynalign_trainer.train import stage as train
from dynalign_trainer.train.processes import launch
from lab.tiny_qwen3 import write_tiny_qwen3
from support.training_data import StopAfterTwoSteps, TrainingRun, make_judgements, make_rollouts, with_sampler

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

PROMPTS, CANDIDATES = 8, 4
SETTINGS = TrainingSettings(
    backend=TrainingBackend.PACKED,
    prompts_per_step=1,
    tokens_per_micro_batch=32,
    learning_rate=1e-3,
    checkpoint_steps=1,
    lora=LoraSettings(rank=4, alpha=8),
)


def a_run(root: Path, method: TrainingMethod, zero_stage: int) -> TrainingRun:
    write_tiny_qwen3(root / "model")
    lora = SETTINGS.lora if method is TrainingMethod.LORA else None
    return TrainingRun(root, SETTINGS.model_copy(update={"method": method, "zero_stage": zero_stage, "lora": lora}))


def weights(folder: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    assert a.keys() == b.keys()
    return float(sum((a[name].double() - b[name].double()).square().sum() for name in a) ** 0.5)


@pytest.mark.parametrize(
    ("method", "zero_stage"),
    [
        (TrainingMethod.LORA, 0),
        (TrainingMethod.LORA, 2),
        (TrainingMethod.LORA, 3),
        (TrainingMethod.FULL, 2),
        (TrainingMethod.FULL, 3),
    ],
)
def test_stopped_and_resumed_it_ends_where_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: TrainingMethod, zero_stage: int
) -> None:
    """Not bit for bit: sums of a GPU's kernels come in no fixed order."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.02)  # these steps are short
    whole, stopped = (a_run(tmp_path / name, method, zero_stage) for name in ("whole", "stopped"))
    model = AutoModelForCausalLM.from_pretrained(whole.root / "model")
    rollouts = with_sampler(make_rollouts(PROMPTS, CANDIDATES), model, noise=0.02)
    judgements = make_judgements(rollouts)

    output = train.run(whole.context(whole.write(rollouts, judgements)))
    config = stopped.write(rollouts, judgements)
    context = stopped.context(config)
    with pytest.raises(TerminatedError):
        train.run(replace(context, telemetry=StopAfterTwoSteps(context.stopping)))
    train.run(stopped.context(config))

    moved = output.metrics[TrainMetrics.norm_change]
    assert moved is not None
    folders = [run.root / "iterations/000/policy" for run in (whole, stopped)]
    assert 0 <= distance(*map(weights, folders)) < 0.2 * moved
