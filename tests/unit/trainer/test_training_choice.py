"""What `Auto` stands for: the same function chooses in fetch, on the meta device, and in training."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_contract.preflight import Preflight
from dynalign_contract.settings import (
    ChatSettings,
    EngineSettings,
    LoraSettings,
    PromptSettings,
    TrainingBackend,
    TrainingMethod,
    TrainingSettings,
)
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.models.training_choice import apply_choice, choose_training, is_chosen, named_choice
from dynalign_trainer.preflight.checks import inspect_folder
from dynalign_trainer.train.choice import settle
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.lora import load_adapter_policy
from support.eager_reference import distance, gradients, read_eager, read_packed, some_rows
from support.tiny_models import GEMMA2, GPT_OSS, MISTRAL, TinyModel

AUTO: Final = TrainingSettings()
ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
USUAL: Final = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
MLA: Final[dict[str, Any]] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
NEXT: Final = TinyModel("Qwen3Next", {"layer_types": ["linear_attention", "full_attention"], "num_experts": 4})


def choose(model: TinyModel, training: TrainingSettings = AUTO) -> TrainingChoice:
    built = model.build(device="meta")
    return choose_training(built, set(built.state_dict()), training)


def adapting(*modules: str, **settings: Any) -> TrainingSettings:
    return TrainingSettings(lora=LoraSettings(target_modules=modules), **settings)


@pytest.mark.parametrize(
    ("model", "backend", "why", "modules", "which"),
    [
        (TinyModel("Qwen3"), "Packed", "Packed computes Qwen3ForCausalLM", USUAL, "attention and MLP"),
        (GEMMA2, "Packed", "Packed computes Gemma2ForCausalLM", USUAL, "attention and MLP"),
        (MISTRAL, "Packed", "Packed computes MistralForCausalLM", USUAL, "attention and MLP"),
        (
            TinyModel("Phi3"),
            "Packed",
            "Packed computes Phi3ForCausalLM",
            ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
            "attention and MLP",
        ),
        (GPT_OSS, "Packed", "Packed computes GptOssForCausalLM", ATTENTION, "mixture of experts"),
        (TinyModel("Mixtral"), "Packed", "Packed computes MixtralForCausalLM", ATTENTION, "mixture of experts"),
        (NEXT, "TRL", "Packed does not compute layers of type linear_attention", ATTENTION, "mixture of experts"),
        (
            TinyModel("DeepseekV3", MLA),
            "TRL",
            "Packed does not compute multi-head latent attention",
            ("o_proj",),
            "mixture of experts",
        ),
    ],
    ids=lambda value: value.family if isinstance(value, TinyModel) else None,
)
def test_auto_takes_what_fits_the_model_and_says_why(
    model: TinyModel, backend: str, why: str, modules: tuple[str, ...], which: str
) -> None:
    choice = choose(model)
    assert (choice.backend, choice.target_modules) == (backend, modules)
    assert why in choice.backend_reason
    assert which in choice.target_reason


def test_what_the_run_file_names_is_taken_without_a_reason_or_refused() -> None:
    named = adapting("q_proj", backend=TrainingBackend.TRL)
    choice = choose(TinyModel("Qwen3"), named)
    assert choice == TrainingChoice(backend=TrainingBackend.TRL, target_modules=("q_proj",)) == named_choice(named)
    with pytest.raises(
        BadConfigError, match="backend is Packed, which does not compute layers of type linear_attention"
    ):
        choose(NEXT, adapting("q_proj", backend=TrainingBackend.PACKED))
    with pytest.raises(BadConfigError, match="targetModules names qkv_proj, which Qwen3ForCausalLM does not have"):
        choose(TinyModel("Qwen3"), adapting("qkv_proj"))


def test_full_training_chooses_no_modules() -> None:
    assert choose(GPT_OSS, TrainingSettings(method=TrainingMethod.FULL)).target_modules == ()


def test_a_model_without_any_of_the_usual_modules_is_refused_with_its_own() -> None:
    with pytest.raises(
        BadConfigError, match=r"is \[Auto\], which takes q_proj, .*; GPTNeoXForCausalLM has none.*Write"
    ):
        choose(TinyModel("GPTNeoX"))


def test_nothing_is_left_to_choose_after_a_choice() -> None:
    assert not is_chosen(AUTO)
    assert not is_chosen(TrainingSettings(backend=TrainingBackend.TRL))
    assert not is_chosen(adapting("q_proj"))
    settled = apply_choice(AUTO, choose(GPT_OSS))
    assert is_chosen(settled)
    assert named_choice(settled).target_modules == ATTENTION


@pytest.mark.parametrize("model", [GPT_OSS, MISTRAL, TinyModel("Phi3")], ids=lambda model: model.family)
def test_the_chosen_modules_are_adapted_and_trained_as_with_eager_attention(model: TinyModel, tmp_path: Path) -> None:
    """On a model folder as transformers writes it, in which experts and tied weights have the names of files."""
    from torch.nn.init import normal_

    model.build().save_pretrained(tmp_path)
    job, choice = settle(a_job(tmp_path))
    policy = load_adapter_policy(job)
    adapted = {name.partition(".lora_B")[0] for name, _ in policy.named_parameters() if "lora_B" in name}
    assert {name.rpartition(".")[2] for name in adapted} == set(choice.target_modules)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            normal_(parameter, std=0.1)
    rows = some_rows()
    wanted, found = read_eager(policy, rows), read_packed(policy, rows)
    assert distance(found, wanted) < 1e-5
    expected, got = gradients(wanted, policy), gradients(found, policy)
    assert len(got) == 2 * len(adapted)
    assert all(distance(got[name], gradient) < 1e-5 for name, gradient in expected.items())


def a_job(model: Path, start: Path | None = None) -> TrainJob:
    paths = {"model": model, "start": start, "batch": model, "work": model, "output": model}
    numbers = {"temperature": 1.0, "max_tokens": 8, "group_size": 2, "iteration": 0, "seed": 0}
    return TrainJob(training=AUTO, config_digest="", **paths, **numbers)


def test_fetch_and_training_choose_alike(tiny_model: Path) -> None:
    asked = Preflight(prompts=PromptSettings(), training=AUTO, max_tokens=8)
    found = inspect_folder(tiny_model, asked, EngineSettings(), ChatSettings()).report().training
    job, choice = settle(a_job(tiny_model))
    assert choice == found
    assert job.training == apply_choice(AUTO, choice)


def test_training_keeps_the_modules_of_the_adapter_that_it_continues(tiny_model: Path, tmp_path: Path) -> None:
    config = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": ["v_proj", "q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    job, choice = settle(a_job(tiny_model, tmp_path))
    assert job.training.adapter.target_modules == choice.target_modules == ("q_proj", "v_proj")
    assert choice.target_reason == "those of the adapter that training continues from"
    assert job.training.backend is TrainingBackend.PACKED
