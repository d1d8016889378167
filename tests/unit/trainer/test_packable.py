"""Which models the Packed backend takes, decided on the meta device, and what it says about the others."""

import re
from typing import Any, Final

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.models.packable import check_packable, find_obstacles
from support.tiny_models import COHERE2, GEMMA2, GEMMA3, GPT_OSS, MISTRAL, OLMO3, QWEN2, TinyModel

LINEAR: Final = "layers of type linear_attention"
MLA: Final[dict[str, Any]] = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}


@pytest.mark.parametrize(
    "model",
    [
        GEMMA2,
        GEMMA3,
        MISTRAL,
        QWEN2,
        OLMO3,
        GPT_OSS,
        COHERE2,
        TinyModel("Llama"),
        TinyModel("Qwen3"),
        TinyModel("Granite", {"logits_scaling": 8.0}),
        TinyModel("Phi"),
        TinyModel("GPT2"),
        TinyModel("GPTNeoX"),
        TinyModel("Mixtral"),
    ],
    ids=lambda model: model.family,
)
def test_models_that_can_be_packed(model: TinyModel) -> None:
    check_packable(model.build(device="meta"))


@pytest.mark.parametrize(
    ("model", "obstacles"),
    [
        (TinyModel("Qwen3Next", {"layer_types": ["linear_attention", "full_attention"]}), [LINEAR]),
        (TinyModel("Lfm2", {"layer_types": ["linear_attention", "full_attention"]}), [LINEAR]),
        (TinyModel("Llama4Text"), ["layers of type chunked_attention"]),
        (
            TinyModel("DeepseekV3", MLA | {"v_head_dim": 8, "n_routed_experts": 4, "moe_intermediate_size": 16}),
            ["multi-head latent attention (kv_lora_rank 16)"],
        ),
        (
            TinyModel("MiMoV2Flash", {"v_head_dim": 16}),
            ["attention heads whose values have 16 elements and whose keys have 8"],
        ),
        (
            TinyModel("Llama", {"head_dim": 512}),
            ["attention heads of 512 elements (it takes multiples of 8 up to 256)"],
        ),
        (TinyModel("Llama", {"head_dim": 20}), ["attention heads of 20 elements (it takes multiples of 8 up to 256)"]),
        (TinyModel("StableLm"), ["attention that transformers does not let be replaced"]),
        (TinyModel("Gemma3Text", {"use_bidirectional_attention": True}), ["attention to later tokens"]),
        (TinyModel("Nemotron"), ["attention that is not given the arguments of the forward pass"]),
        (TinyModel("Doge"), ["an attention mask of the model's own"]),
        (TinyModel("Qwen3", {"final_logit_softcapping": 30.0}), ["final_logit_softcapping 30.0"]),
        (TinyModel("Qwen3", {"logits_scaling": 8.0}), ["logits_scaling 8.0"]),
    ],
    ids=lambda value: value.family if isinstance(value, TinyModel) else " and ".join(value),
)
def test_a_model_that_cannot_be_packed_is_refused(model: TinyModel, obstacles: list[str]) -> None:
    built = model.build(device="meta")
    assert find_obstacles(built) == obstacles
    with pytest.raises(BadConfigError, match=re.escape(f"of {type(built).__name__}. Write backend: Auto or TRL")):
        check_packable(built)
