"""`training.method: Full`: all weights trained, stored without loss, continued, played by the engine."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import Policy, TrainParams
from dynalign_contract.errors import BadConfigError, TerminatedError
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.settings import (
    DType,
    KlSettings,
    OptimizerOffload,
    TrainingBackend,
    TrainingMethod,
    TrainingSettings,
)
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.context import StageOutput
from dynalign_trainer.train import stage as train
from dynalign_trainer.train.processes import launch
from lab.tiny_qwen3 import write_tiny_qwen3
from support.training_data import (
    StopAfterTwoSteps,
    TrainingRun,
    make_judgements,
    make_rollouts,
    with_sampler,
    write_artifact,
)

pytestmark = pytest.mark.slow

PROMPTS, CANDIDATES = 6, 4
FILES = {"config.json", "model.safetensors"}
SETTINGS = TrainingSettings(
    method=TrainingMethod.FULL,
    prompts_per_step=1,
    tokens_per_micro_batch=32,
    learning_rate=1e-3,
    checkpoint_steps=1,
    kl=KlSettings(coefficient=0.05),
)


def a_run(root: Path, **settings: Any) -> TrainingRun:
    write_tiny_qwen3(root / "model")
    return TrainingRun(root, SETTINGS.model_copy(update=settings))


def rollouts_of(run: TrainingRun, prompts: int = PROMPTS) -> list[Any]:
    from transformers import AutoModelForCausalLM

    start = "model" if run.policy.adapter is None else run.policy.adapter.path
    rows = make_rollouts(prompts, CANDIDATES, policy=run.policy.version)
    return with_sampler(rows, AutoModelForCausalLM.from_pretrained(run.root / start), noise=0.02)


def train_on(run: TrainingRun, rewards: list[float] | None = None) -> StageOutput[TrainParams]:
    rollouts = rollouts_of(run)
    return train.run(run.context(run.write(rollouts, make_judgements(rollouts, rewards))))


def policy_folder(run: TrainingRun) -> Path:
    return run.root / f"iterations/{run.iteration:03d}/policy"


def weights(folder: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def farthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


def next_run(first: TrainingRun, **settings: Any) -> TrainingRun:
    policy = write_artifact(first.root, "iterations/000/policy", Stage.TRAIN, iteration=0)
    return replace(first, iteration=1, policy=Policy(version="iteration-000", adapter=policy)).with_settings(**settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRun, StageOutput[TrainParams]]:
    """A first iteration that nothing disturbed."""
    run = a_run(tmp_path_factory.mktemp("whole"))
    return run, train_on(run)


def test_every_weight_moves_and_is_stored_in_float32(whole: tuple[TrainingRun, StageOutput[TrainParams]]) -> None:
    run, output = whole
    assert set(output.files) == FILES
    before, after = weights(run.root / "model"), weights(policy_folder(run))
    assert {str(value.dtype) for value in after.values()} == {"torch.float32"}
    assert before.keys() == after.keys()
    assert all((after[name] != before[name].float()).any() for name in before)
    distance = sum((after[name].double() - before[name].double()).square().sum().item() for name in before) ** 0.5
    assert output.metrics[TrainMetrics.norm_change] == pytest.approx(distance, rel=1e-5)


def test_stopped_in_the_middle_it_ends_with_the_same_bits(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.02)  # these steps are short
    run = a_run(tmp_path)
    rollouts = rollouts_of(run)
    config = run.write(rollouts, make_judgements(rollouts))
    context = run.context(config)

    with pytest.raises(TerminatedError):
        train.run(replace(context, telemetry=StopAfterTwoSteps(context.stopping)))
    assert train.run(run.context(config)).metrics[TrainMetrics.trained_steps] == PROMPTS
    assert farthest(weights(policy_folder(run)), weights(policy_folder(whole[0]))) == 0


@pytest.mark.parametrize(
    ("zero_stage", "dtype"),
    [(0, DType.FLOAT32), (1, DType.BFLOAT16), (3, DType.FLOAT32), (3, DType.BFLOAT16)],
)
def test_every_kind_of_optimiser_state_survives_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero_stage: int, dtype: DType
) -> None:
    """DeepSpeed keeps it in another class for each; none of them is pickled."""
    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.02)
    runs = [a_run(tmp_path / name, zero_stage=zero_stage, kl=KlSettings()) for name in ("whole", "stopped")]
    rollouts = rollouts_of(runs[0])
    contexts = []
    for run in runs:
        config = run.write(rollouts, make_judgements(rollouts))
        engine = config.engine.model_copy(update={"dtype": dtype})
        contexts.append(run.context(config.model_copy(update={"engine": engine})))
    whole, stopped = contexts
    train.run(whole)
    with pytest.raises(TerminatedError):
        train.run(replace(stopped, telemetry=StopAfterTwoSteps(stopped.stopping)))
    train.run(replace(stopped, stopping=threading.Event()))
    assert farthest(*(weights(policy_folder(run)) for run in runs)) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"zero_stage": 3, "gpus_per_node": 2, "kl": KlSettings()},
        {"backend": TrainingBackend.TRL, "micro_batch": 2},
        {"optimizer_offload": OptimizerOffload.CPU},
        {"optimizer_offload": OptimizerOffload.CPU, "backend": TrainingBackend.TRL, "micro_batch": 2},
    ],
    ids=["zero3-2-processes", "trl", "offload", "offload-trl"],
)
def test_other_engines_train_the_same(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], tmp_path: Path, settings: dict[str, Any]
) -> None:
    plain = whole[0] if "kl" not in settings else a_run(tmp_path / "plain", kl=KlSettings())
    if plain is not whole[0]:
        train_on(plain)
    run = a_run(tmp_path / "other", **settings)
    train_on(run)
    assert farthest(weights(policy_folder(run)), weights(policy_folder(plain))) < 1e-4


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_training_in_bfloat16_goes_on_from_every_digit(
    whole: tuple[TrainingRun, StageOutput[TrainParams]], zero_stage: int
) -> None:
    """Steps this small leave the weights where they were, which bfloat16 alone could not say."""
    start = weights(policy_folder(whole[0]))
    run = replace(
        next_run(whole[0], zero_stage=zero_stage, learning_rate=1e-9, kl=KlSettings()), iteration=zero_stage + 1
    )
    rollouts = rollouts_of(run, prompts=2)
    config = run.write(rollouts, make_judgements(rollouts))
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"dtype": DType.BFLOAT16})})
    assert train.run(run.context(config)).metrics[TrainMetrics.trained_steps] == 2
    assert farthest(weights(policy_folder(run)), start) < 1e-7
    assert farthest({n: v.bfloat16() for n, v in start.items()}, start) > 1e-4


def test_equal_rewards_keep_the_policy_and_another_method_is_refused(
    whole: tuple[TrainingRun, StageOutput[TrainParams]],
) -> None:
    run = replace(next_run(whole[0]), iteration=7)
    output = train_on(run, [0.5] * PROMPTS * CANDIDATES)
    assert output.metrics[TrainMetrics.trained_steps] == 0
    assert set(output.files) == FILES
    assert farthest(weights(policy_folder(run)), weights(policy_folder(whole[0]))) == 0
    with pytest.raises(BadConfigError, match=r"method is LoRA but .* was made with Full: a run keeps its method"):
        train_on(run.with_settings(method=TrainingMethod.LORA))
