"""The Packed forward and backward pass against transformers' eager attention, row by row, in float32."""

import math
from functools import cache
from typing import Any, Final

import pytest
import torch

from dynalign_trainer.models.packable import check_packable
from support.eager_reference import distance, gradients, read_eager, read_packed, some_rows
from support.tiny_models import (
    COHERE2,
    GEMMA2,
    GEMMA3,
    GPT_OSS,
    GRANITE_SWA,
    MISTRAL,
    OLMO3,
    PHI_MOE,
    QWEN2,
    VAULT_GEMMA,
    TinyModel,
)

TOLERANCE: Final = 1e-5
_CAPS_OFF: Final = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
_NO_WINDOW: Final = {"layer_types": ["full_attention"] * 2}

MODELS: Final = {
    "windows, query scaling, both caps (Gemma 2)": GEMMA2,
    "windows and query scaling (Gemma 3)": GEMMA3,
    "a window in all layers (Mistral 7B)": MISTRAL,
    "a window of one token": MISTRAL.changed(sliding_window=1),
    "windows in some layers (Qwen 2)": QWEN2,
    "windows (OLMo 3)": OLMO3,
    "windows, sinks, biased projections, experts (gpt-oss)": GPT_OSS,
    "windows and scaled logits (Cohere 2)": COHERE2,
    "a window only": GEMMA2.changed(**_CAPS_OFF),
    "capped scores only": GEMMA2.changed(**_NO_WINDOW, final_logit_softcapping=None),
    "capped logits only": GEMMA2.changed(**_NO_WINDOW, attn_logit_softcapping=None),
    "query scaling only": GEMMA2.changed(**_NO_WINDOW, **_CAPS_OFF),
    "sinks only": GPT_OSS.changed(**_NO_WINDOW),
    "scaled logits": TinyModel("Cohere", {"logit_scale": 0.25}),
    "divided logits (Granite)": TinyModel("Granite", {"logits_scaling": 4.0, "attention_multiplier": 0.5}),
    "multiplied logits (HyperCLOVA X)": TinyModel("HyperCLOVAX", {"logits_scaling": 0.25}),
    "divided logits, experts (Granite MoE)": TinyModel("GraniteMoe", {"logits_scaling": 4.0, "num_local_experts": 4}),
    "windows, sinks, divided logits, experts (Granite MoE SWA)": TinyModel(
        "GraniteMoeSWA", GRANITE_SWA.settings | {"num_local_experts": 4}
    ),
    "windows, scaled logits, experts (Cohere 2 MoE)": TinyModel(
        "Cohere2Moe", COHERE2.settings | {"num_experts": 4, "num_experts_per_tok": 2}
    ),
    "attention whose output is viewed (AFMoE)": TinyModel("Afmoe"),
    "divided logits, a shared expert (Granite MoE)": TinyModel(
        "GraniteMoeShared", {"logits_scaling": 4.0, "num_local_experts": 4, "shared_intermediate_size": 16}
    ),
    "windows, sinks and divided logits (Granite SWA)": GRANITE_SWA,
    "windows and both caps (VaultGemma)": VAULT_GEMMA,
    "capped logits (nanochat)": TinyModel("NanoChat", {"final_logit_softcapping": 3.0}),
    "a biased head (Phi)": TinyModel("Phi"),
    "windows in the mask alone (Phi 3.5 MoE)": PHI_MOE,
    "nothing special (Qwen 3)": TinyModel("Qwen3"),
}


@cache
def eager_pass(name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Values and the gradients of all parameters; those that are trained do not depend on which others are."""
    model = MODELS[name].build()
    values = read_eager(model, some_rows())
    return values.detach(), gradients(values, model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("trained_head", [True, False], ids=["all trained", "head frozen"])
def test_values_and_gradients_are_those_of_eager_attention(name: str, trained_head: bool) -> None:
    model = MODELS[name].build()
    check_packable(model)
    model.get_output_embeddings().requires_grad_(trained_head)
    wanted, all_gradients = eager_pass(name)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = {name: gradient for name, gradient in all_gradients.items() if name in trained}
    assert (len(expected) < len(all_gradients)) == (not trained_head)
    found = read_packed(model, some_rows())
    assert distance(found, wanted) < TOLERANCE
    got = gradients(found, model)
    assert got.keys() == expected.keys()
    whole = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    far = {n: d for n, g in expected.items() if g.norm() > 1e-4 * whole and (d := distance(got[n], g)) > TOLERANCE}
    assert not far


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_windows_and_sinks_are_the_same_when_activations_are_computed_again(use_reentrant: bool) -> None:
    model, rows = GPT_OSS.build(), some_rows()
    expected = gradients(read_packed(model, rows), model)
    model.train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    logps = read_packed(model, rows)
    torch.manual_seed(2)
    (logps * torch.randn(len(logps))).sum().backward()
    for name, parameter in model.named_parameters():
        assert distance(parameter.grad, expected[name]) < TOLERANCE, name


@pytest.mark.parametrize(
    ("model", "without"),
    [
        (GEMMA2.changed(**_CAPS_OFF), _NO_WINDOW),
        (GEMMA2, {"attn_logit_softcapping": None}),
        (GEMMA2, {"final_logit_softcapping": None}),
        (GEMMA2, {"query_pre_attn_scalar": 8}),
        (COHERE2, {"logit_scale": 1.0}),
        (MISTRAL, {"sliding_window": None}),
    ],
    ids=["window", "capped scores", "capped logits", "query scaling", "scaled logits", "window in all layers"],
)
def test_each_feature_of_the_tiny_models_changes_their_values(model: TinyModel, without: dict[str, Any]) -> None:
    """Else the parity would hold for a pass that leaves the feature out."""
    rows = some_rows()
    assert distance(read_eager(model.changed(**without).build(), rows), read_eager(model.build(), rows)) > 1e-2


def test_the_sinks_of_the_tiny_model_change_its_values() -> None:
    model, rows = GPT_OSS.build(), some_rows()
    before = read_eager(model, rows)
    for layer in model.model.layers:
        layer.self_attn.sinks.data.fill_(-100.0)
    assert distance(read_eager(model, rows), before) > 1e-2
