"""`targetModules`: only what can be trained, merged and sampled alike, found on a model without weights."""

from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.models.lora_targets import check_targets, find_targets
from dynalign_trainer.preflight import text_model

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "vocab_size": 40,
    "pad_token_id": 0,
}


def on_meta(name: str, **config: Any) -> Any:
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**SIZES | config))


def names_of(model: Any) -> set[str]:
    return set(model.state_dict())


def test_linear_layers_are_offered() -> None:
    model = on_meta("Qwen3", tie_word_embeddings=True)
    assert find_targets(model, names_of(model)).allowed == LINEAR
    check_targets(model, LINEAR, names_of(model))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("c_attn", "Qwen3ForCausalLM does not have"),
        ("embed_tokens", "is an embedding"),
        ("lm_head", "is the output head"),
        ("input_layernorm", "is no linear layer .Qwen3RMSNorm."),
        ("q_norm", "is no linear layer"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_what_cannot_be_adapted_is_refused_and_never_offered(name: str, why: str, tied: bool) -> None:
    model = on_meta("Qwen3", tie_word_embeddings=tied)
    with pytest.raises(BadConfigError, match=f"names {name}, which .*{why}") as caught:
        check_targets(model, ["q_proj", name], names_of(model))
    offered = str(caught.value).rpartition("Write some of ")[2].rstrip(".").split(", ")
    check_targets(model, offered, names_of(model))


def test_fused_projections_are_offered_by_their_own_names() -> None:
    model = on_meta("Phi3")
    with pytest.raises(BadConfigError, match=r"Write some of down_proj, gate_up_proj, o_proj, qkv_proj\."):
        check_targets(model, LINEAR, names_of(model))


def test_transposed_layers_of_gpt2_cannot_be_merged() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40))
    with pytest.raises(BadConfigError, match=r"c_attn is no linear layer \(Conv1D\).*method: Full"):
        check_targets(model, ["c_attn"], names_of(model))


@pytest.mark.parametrize("rename", [lambda n: n.removeprefix("model."), lambda n: f"language_model.{n}"])
def test_names_that_differ_between_file_and_memory_are_refused(rename: Any) -> None:
    model = on_meta("Qwen3")
    with pytest.raises(BadConfigError, match=r"q_proj has another name in the model's files") as caught:
        check_targets(model, ["q_proj"], {rename(name) for name in names_of(model)})
    assert f"`python -m {text_model.__name__} MODEL FOLDER`" in str(caught.value)
    partly = names_of(model) - {"model.layers.0.mlp.up_proj.weight"}
    check_targets(model, ["q_proj"], partly)


def test_a_layer_that_some_of_the_files_call_otherwise_is_named_with_the_command_that_renames_it() -> None:
    model = on_meta("Qwen3", num_hidden_layers=2)
    names = names_of(model) - {"model.layers.1.self_attn.q_proj.weight"} | {"model.layers.1.attention.query.weight"}
    with pytest.raises(BadConfigError, match=r"calls model\.layers\.1\.self_attn\.q_proj\.weight otherwise") as caught:
        check_targets(model, ["k_proj", "q_proj"], names)
    assert f"`python -m {text_model.__name__} MODEL FOLDER`" in str(caught.value)
