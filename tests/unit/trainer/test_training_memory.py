"""Memory of training: the formula against passes of real models, and what is decided by it."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from dynalign_contract.model_shape import shape_of
from dynalign_contract.settings import TrainingMethod, TrainingSettings
from dynalign_contract.training_memory import training_memory
from dynalign_trainer.runtime import memory
from dynalign_trainer.runtime.memory import free_memory, memory_limit
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.packed import activations
from dynalign_trainer.train.packed.activations import must_recompute
from lab.tiny_qwen3 import write_tiny_qwen3
from lab.training_jobs import make_job
from support.cuda_passes import on_cuda, on_meta, score_rows
from support.memory_limits import control_group
from support.real_models import real_config

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LONG = (("a", 128, 700), ("a", 128, 700), ("b", 128, 340))
TOKENS = 128 + 2 * 699 + 128 + 339


def kept_bytes(name: str, method: TrainingMethod) -> int:
    """Bytes of all tensors that the pass of a real model's layers keeps for its backward pass, weights left out."""
    import torch
    from peft import LoraConfig, get_peft_model

    policy = on_meta(name)
    if method is TrainingMethod.FULL:
        policy.requires_grad_(True)
    else:
        lora = LoraConfig(r=16, target_modules=ALL, task_type="CAUSAL_LM")
        policy = get_peft_model(policy, lora, autocast_adapter_dtype=True)
    with on_cuda(policy):
        weights = {tensor.untyped_storage()._cdata for tensor in (*policy.parameters(), *policy.buffers())}
        kept: dict[int, Any] = {}

        def keep(tensor: Any) -> Any:
            if tensor.untyped_storage()._cdata not in weights:
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            score_rows(policy, LONG)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", TrainingMethod)
@pytest.mark.parametrize("name", ["Qwen3-8B", "Llama-3.1-8B", "Mistral-7B-v0.1", "gemma-3-1b"])
def test_activations_are_those_that_the_pass_of_a_real_model_keeps(
    name: str, method: TrainingMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass has few layers, so that what it keeps beside them weighs more than in the whole model."""
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    shape = shape_of(real_config(name).to_dict())
    settings = TrainingSettings(method=method)
    found = training_memory(settings, shape, processes=1, value_bytes=2, tokens=TOKENS, recomputes=False)
    assert 0.95 < found.activations / kept_bytes(name, method) < 1.3


def test_models_that_keep_all_scores_are_known() -> None:
    names = ["Qwen3-8B", "gemma-2-9b", "gemma-3-1b", "gpt-oss-20b"]
    keeps = [shape_of(real_config(name).to_dict()).keeps_scores for name in names]
    assert keeps == [False, True, False, True]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(activations, "gather", lambda value: [value])
    model = write_tiny_qwen3(tmp_path / "model")
    return make_job(model=model, batch=tmp_path, work=tmp_path / "work")


def test_activations_are_kept_where_they_fit_and_computed_again_where_not(
    job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = []
    for free in (1 << 20, 1 << 30):
        monkeypatch.setattr(activations, "free_memory", lambda free=free: free)
        decided.append(must_recompute(job, tokens=1000))
    assert decided == [True, False]
    assert must_recompute(job, tokens=10_000_000)


def test_one_process_without_room_decides_for_all(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "gather", lambda value: [value, True])
    monkeypatch.setattr(activations, "free_memory", lambda: 1 << 40)
    assert must_recompute(job, tokens=10)


@pytest.mark.parametrize("chosen", [True, False])
def test_what_the_specification_says_holds(job: TrainJob, monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    monkeypatch.setattr(activations, "free_memory", lambda: 0 if not chosen else 1 << 40)
    training = job.training.model_copy(update={"gradient_checkpointing": chosen})
    assert must_recompute(job.model_copy(update={"training": training}), tokens=1000) is chosen


@pytest.mark.parametrize(
    ("files", "free", "limit"),
    [
        ({"max": "1000", "current": "900", "stat": "anon 1\ninactive_file 300"}, 400, 1000),
        ({"max": "1000", "current": "900"}, 1000, 1000),
        ({"max": "max", "current": "900", "stat": "inactive_file 300"}, None, None),
        ({}, None, None),
    ],
    ids=["limited", "without details", "unlimited", "no container"],
)
def test_free_memory_is_what_the_container_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int | None, limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", (control_group(tmp_path),))
    machine = psutil.virtual_memory()
    assert memory_limit() == (machine.total if limit is None else limit)
    assert free_memory() == free if free is not None else free_memory() > 1 << 20
