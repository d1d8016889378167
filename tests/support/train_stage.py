"""The train stage on a tiny model, and what it leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalign_contract.config import TrainParams
from dynalign_contract.records import RolloutRow
from dynalign_contract.settings import KlSettings, LoraSettings, TrainingSettings
from dynalign_trainer.models.plain_adapter import ADAPTER_WEIGHTS
from dynalign_trainer.runtime.context import StageOutput
from dynalign_trainer.train import stage as train
from lab.tiny_qwen3 import write_tiny_qwen3
from support.training_data import TrainingRun, make_judgements, make_rollouts, with_sampler

PROMPTS, EPOCHS, CANDIDATES = 8, 2, 4
STEPS = PROMPTS * EPOCHS
SETTINGS = TrainingSettings(
    prompts_per_step=1,
    epochs=EPOCHS,
    micro_batch=2,
    tokens_per_micro_batch=32,
    learning_rate=1e-3,
    checkpoint_steps=1000,
    kl=KlSettings(coefficient=0.05),
    lora=LoraSettings(rank=4, alpha=8),
)


def load_policy(model: Path, adapter: Path | None) -> Any:
    """The model, or the model with an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    return base if adapter is None else PeftModel.from_pretrained(base, adapter)


def a_run(root: Path, **settings: Any) -> TrainingRun:
    """A run of the train stage on a tiny model that is written here; `settings` replace those of `SETTINGS`."""
    write_tiny_qwen3(root / "model")
    return TrainingRun(root, SETTINGS.model_copy(update=settings))


def rollouts_of(run: TrainingRun, prompts: int = PROMPTS) -> list[RolloutRow]:
    """Rollouts with the log-probabilities of the run's policy, slightly disturbed."""
    adapter = None if run.policy.adapter is None else run.root / run.policy.adapter.path
    rows = make_rollouts(prompts, CANDIDATES, policy=run.policy.version)
    return with_sampler(rows, load_policy(run.root / "model", adapter), noise=0.02)


def train_on(
    run: TrainingRun, rollouts: list[RolloutRow], rewards: list[float] | None = None
) -> StageOutput[TrainParams]:
    """Run the stage."""
    return train.run(run.context(run.write(rollouts, make_judgements(rollouts, rewards))))


def weights(run: TrainingRun) -> Mapping[str, Any]:
    """Tensors of the adapter that the run's iteration has left."""
    from safetensors.torch import load_file

    return load_file(run.root / f"iterations/{run.iteration:03d}/policy" / ADAPTER_WEIGHTS)


def farthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Largest difference of two adapters."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
