"""The families of the zoo, each with what the preflight decides about it; docs/models.md is made from this table.

Sizes are tiny, but for those of attention heads where the real ones decide about the backend. Families share an
architecture where their templates differ.
"""

from typing import Any, Final

from support.quantised_models import AUTO_FP8, AWQ, BITSANDBYTES, FP8, FP8_DYNAMIC, GPTQ, MXFP4, W4A16, W8A8
from support.tiny_models import COHERE2, GEMMA2, GEMMA3, GPT_OSS, MISTRAL, OLMO3, PHI_MOE, TinyModel
from zoo.families import ATTENTION, EXPERTS, USUAL, Family, Passes, Refused, Thoughts

_NONE, _CHOICE, _ALWAYS = Thoughts
_FUSED: Final = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
_LINEAR: Final = "layers of type linear_attention"
_VISION: Final = "imports torchvision, which is not installed"
_SINGLE: Final = "keeps its experts one by one"
_GRANITE: Final = "keeps its experts as Granite does"
_RECURRENT: Final = "has recurrent layers"
_LATENT: Final = "multi-head latent attention (kv_lora_rank 16)"

_MOE: Final[dict[str, Any]] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SHARED: Final = _MOE | {"shared_expert_intermediate_size": 32}
_FEW: Final[dict[str, Any]] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_ROUTED: Final[dict[str, Any]] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MLA: Final[dict[str, Any]] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
_HYBRID: Final[dict[str, Any]] = {"layer_types": ["linear_attention", "full_attention"]}
_CONVOLUTIONS: Final[dict[str, Any]] = {"layer_types": ["conv", "full_attention"]}
_BOTH: Final[dict[str, Any]] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
_MAMBA: Final[dict[str, Any]] = {"hidden_size": 128, "mamba_n_heads": 16, "mamba_d_head": 16, "mamba_d_state": 16}
_GRANITE4: Final = _FEW | _MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 16}
_GRANITE4_DENSE: Final = _GRANITE4 | {
    "layer_types": ["attention", "attention"],
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
}
_NO_WINDOW: Final[dict[str, Any]] = {"sliding_window": None}
_TIED: Final[dict[str, Any]] = {"tie_word_embeddings": True}
_GEMMA: Final = _TIED | {"head_dim": 256}
_CAPS: Final[dict[str, Any]] = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""Caps as they are published; with much smaller ones vLLM gave NaN on a CPU."""
_LLAMA4: Final[dict[str, Any]] = {"num_local_experts": 4, "intermediate_size_mlp": 48}
_EYE: Final[dict[str, Any]] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_EYE: Final = _EYE | {"depth": 1, "num_heads": 2, "out_hidden_size": 128, "num_position_embeddings": 16}
_LLAMA4_EYE: Final = _EYE | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
_LLAMA: Final = TinyModel("Llama")
_DEEPSEEK: Final = TinyModel("DeepseekV3", _MLA | _ROUTED | {"topk_method": "noaux_tc"})
_FOREIGN: Final = "calls its tensors otherwise than {} does: it has {} and no {}. vLLM and merging go by these names."
_UNKNOWN: Final = "has no causal language model of the model_type {}"
_UNUSUAL: Final = (
    "spec.training.lora.targetModules is [Auto], which takes q_proj, k_proj, v_proj, qkv_proj, o_proj, gate_proj, "
    "up_proj, gate_up_proj, down_proj; {} has none of these that can be adapted. {}"
)

DENSE: Final = (
    Family("Llama 3", _LLAMA, "llama-3", Passes(_NONE)),
    Family("Llama 3.1, 3.2, 3.3", _LLAMA, "llama-3.2", Passes(_NONE)),
    Family("SmolLM2", _LLAMA, "smollm2", Passes(_NONE)),
    Family("SmolLM3", TinyModel("SmolLM3"), "smollm3", Passes(_CHOICE)),
    Family("DeepSeek-R1-Distill-Llama", _LLAMA, "deepseek-r1", Passes(_ALWAYS)),
    Family("DeepSeek-R1-Distill-Qwen", TinyModel("Qwen2"), "deepseek-r1", Passes(_ALWAYS)),
    Family("Qwen2.5", TinyModel("Qwen2"), "qwen2.5", Passes(_NONE)),
    Family("Qwen3", TinyModel("Qwen3"), "qwen3", Passes(_CHOICE)),
    Family("Qwen3 Thinking", TinyModel("Qwen3"), "qwen3-thinking", Passes(_ALWAYS)),
    Family("Gemma", TinyModel("Gemma", _GEMMA), "gemma-2", Passes(_NONE), is_nearest=True),
    Family("Gemma 2", GEMMA2.changed(**_GEMMA, **_CAPS, query_pre_attn_scalar=256), "gemma-2", Passes(_NONE)),
    Family("Gemma 3, text", GEMMA3.changed(**_GEMMA), "gemma-3", Passes(_NONE)),
    Family("Mistral 7B", MISTRAL, "mistral-v0.3", Passes(_NONE)),
    Family("Mistral Small 3", MISTRAL.changed(**_NO_WINDOW), "mistral-small-3", Passes(_NONE)),
    Family("Ministral 8B", TinyModel("Ministral", _BOTH), "mistral-v0.3", Passes(_NONE), is_nearest=True),
    Family("Phi-3, Phi-4", TinyModel("Phi3", _NO_WINDOW), "phi-4", Passes(_NONE, _FUSED)),
    Family("Phi-4 reasoning", TinyModel("Phi3", _NO_WINDOW), "phi-4-reasoning", Passes(_ALWAYS, _FUSED)),
    Family("GLM-4", TinyModel("Glm4"), "glm-4.5", Passes(_CHOICE, (*ATTENTION, *_FUSED[2:])), is_nearest=True),
    Family("Granite 3", TinyModel("Granite", {"logits_scaling": 8.0}), "granite-3.3", Passes(_CHOICE)),
    Family(
        "Granite 4, dense",
        TinyModel("GraniteMoeHybrid", _GRANITE4_DENSE),
        "granite-3.3",
        Passes(_CHOICE, ATTENTION, "a forward pass that cannot be looked into (RuntimeError)"),
        is_nearest=True,
    ),
    Family(
        "Command R", TinyModel("Cohere", _TIED | {"logit_scale": 0.25}), "command-r7b", Passes(_CHOICE), is_nearest=True
    ),
    Family(
        "Command R7B",
        COHERE2.changed(**_TIED),
        "command-r7b",
        Passes(_CHOICE),
        differs="vLLM's window is one token longer, which matters where the context is longer than the window",
    ),
    Family("OLMo 2", TinyModel("Olmo2"), "smollm2", Passes(_NONE), is_nearest=True),
    Family("OLMo 3", OLMO3, "smollm2", Passes(_NONE), is_nearest=True),
    Family("EXAONE 4", TinyModel("Exaone4", _BOTH), "qwen3", Passes(_CHOICE), is_nearest=True),
    Family("Seed-OSS", TinyModel("SeedOss"), "qwen3", Passes(_CHOICE), is_nearest=True),
    Family("ERNIE 4.5", TinyModel("Ernie4_5"), "smollm2", Passes(_NONE), is_nearest=True),
    Family("Hunyuan", TinyModel("HunYuanDenseV1"), "qwen3", Passes(_CHOICE), is_nearest=True),
    Family(
        "Apertus",
        TinyModel("Apertus"),
        "smollm2",
        Passes(_NONE, (*ATTENTION, "up_proj", "down_proj")),
        is_nearest=True,
        differs="vLLM rounds the two numbers of xIELU to BFloat16 in a Float32 engine too: a difference of 1e-3",
    ),
    Family(
        "StarCoder2",
        TinyModel("Starcoder2", {"sliding_window": 4}),
        "smollm2",
        Passes(_NONE, ATTENTION),
        is_nearest=True,
    ),
    Family(
        "StableLM 2",
        TinyModel("StableLm"),
        "smollm2",
        Passes(_NONE, obstacle="attention that transformers does not let be replaced"),
        is_nearest=True,
    ),
    Family(
        "Nemotron 4",
        TinyModel("Nemotron"),
        "smollm2",
        Passes(
            _NONE,
            (*ATTENTION, "up_proj", "down_proj"),
            "attention that is not given the arguments of the forward pass",
        ),
        is_nearest=True,
    ),
)
"""Transformers whose layers all attend, without experts."""

MIXTURES: Final = (
    Family("gpt-oss, in BFloat16", GPT_OSS, "gpt-oss", Passes(_CHOICE, ATTENTION)),
    Family(
        "Mixtral",
        TinyModel("Mixtral", _FEW),
        "mistral-v0.3",
        Passes(_NONE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
        is_nearest=True,
    ),
    Family(
        "Phi-3.5-MoE", PHI_MOE, "phi-4", Passes(_NONE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE), is_nearest=True
    ),
    Family(
        "Qwen1.5-MoE",
        TinyModel("Qwen2Moe", _SHARED),
        "qwen2.5",
        Passes(_NONE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
        is_nearest=True,
    ),
    Family(
        "Qwen3 MoE",
        TinyModel("Qwen3Moe", _MOE),
        "qwen3",
        Passes(_CHOICE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
    ),
    Family(
        "OLMoE",
        TinyModel("Olmoe", _MOE),
        "smollm2",
        Passes(_NONE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
        is_nearest=True,
    ),
    Family(
        "GLM-4.5",
        TinyModel("Glm4Moe", _ROUTED),
        "glm-4.5",
        Passes(_CHOICE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
    ),
    Family(
        "GLM-4.7-Flash",
        TinyModel("Glm4MoeLite", _MLA | _ROUTED),
        "glm-4.5",
        Passes(_CHOICE, ("o_proj",), _LATENT, EXPERTS, unsampled=_SINGLE),
        is_nearest=True,
    ),
    Family(
        "Granite 3 MoE",
        TinyModel("GraniteMoe", _FEW),
        "granite-3.3",
        Passes(_CHOICE, ATTENTION, renamed=EXPERTS, unsampled=_GRANITE),
    ),
    Family(
        "MiniMax-M2",
        TinyModel("MiniMaxM2", _FEW),
        "qwen3-thinking",
        Passes(_ALWAYS, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
        is_nearest=True,
    ),
    Family(
        "Llama 4, text",
        TinyModel("Llama4Text", _LLAMA4),
        "llama-3",
        Passes(_NONE, ATTENTION, "layers of type chunked_attention"),
        is_nearest=True,
    ),
    Family(
        "DeepSeek-V3.1, in BFloat16",
        _DEEPSEEK,
        "deepseek-v3.1",
        Passes(_CHOICE, ("o_proj",), _LATENT, EXPERTS, unsampled=_SINGLE),
    ),
)
"""Mixtures of experts whose layers all attend."""

HYBRIDS: Final = (
    Family(
        "Qwen3-Next",
        TinyModel("Qwen3Next", _SHARED | _HYBRID),
        "qwen2.5",
        Passes(_NONE, ATTENTION, _LINEAR, EXPERTS, f"{_RECURRENT} and {_SINGLE}"),
        is_nearest=True,
    ),
    Family(
        "Qwen3.5, text",
        TinyModel("Qwen3_5Text", _HYBRID),
        "qwen3",
        Passes(_CHOICE, USUAL, _LINEAR, unsampled=f"{_VISION} and {_RECURRENT}"),
        is_nearest=True,
    ),
    Family(
        "Qwen3.5 MoE, text",
        TinyModel("Qwen3_5MoeText", _SHARED | _HYBRID),
        "qwen3",
        Passes(_CHOICE, ATTENTION, _LINEAR, EXPERTS, f"{_VISION} and {_RECURRENT} and {_SINGLE}"),
        is_nearest=True,
    ),
    Family(
        "Granite 4",
        TinyModel("GraniteMoeHybrid", _GRANITE4),
        "granite-3.3",
        Passes(_CHOICE, ATTENTION, _LINEAR, EXPERTS, f"{_RECURRENT} and {_GRANITE}"),
        is_nearest=True,
    ),
    Family(
        "LFM2",
        TinyModel("Lfm2", _CONVOLUTIONS),
        "smollm2",
        Passes(_NONE, ATTENTION[:3], "layers of type conv", unsampled=_RECURRENT),
        is_nearest=True,
    ),
    Family(
        "Falcon-H1",
        TinyModel("FalconH1", _MAMBA | {"mamba_d_ssm": 256}),
        "smollm2",
        Passes(_NONE, USUAL, "layers of type hybrid", unsampled=_RECURRENT),
        is_nearest=True,
    ),
    Family(
        "Kimi Linear",
        TinyModel("KimiLinear", _MLA | _HYBRID | {"num_experts": 4}),
        "deepseek-v3.1",
        Passes(_CHOICE, ATTENTION, f"{_LINEAR} and {_LATENT}", "mlp.down_proj", f"{_RECURRENT} and {_SINGLE}"),
        is_nearest=True,
    ),
)
"""Models that mix tokens by other means than attention in some of their layers."""

_FOUR_BITS: Final[dict[str, Any]] = {"intermediate_size": 64}
"""A multiple of the 32 columns that share a scale."""
_REST: Final = (
    "spec.model.quantized: Dequantize converts mxfp4, fp8, compressed-tensors, awq as config.json describes them"
)

QUANTISED: Final = (
    Family(
        "gpt-oss, as published", GPT_OSS.changed(**_FOUR_BITS), "gpt-oss", Passes(_CHOICE, ATTENTION), quantiser=MXFP4
    ),
    Family(
        "DeepSeek-V3.1, as published",
        _DEEPSEEK,
        "deepseek-v3.1",
        Passes(_CHOICE, ("o_proj",), _LATENT, EXPERTS, unsampled=_SINGLE),
        quantiser=FP8,
    ),
    Family("Qwen3 FP8", TinyModel("Qwen3"), "qwen3", Passes(_CHOICE), quantiser=FP8),
    Family(
        "Qwen3 MoE FP8",
        TinyModel("Qwen3Moe", _MOE),
        "qwen3",
        Passes(_CHOICE, ATTENTION, renamed=EXPERTS, unsampled=_SINGLE),
        quantiser=FP8,
    ),
    Family("Llama 3.1, AutoFP8", _LLAMA, "llama-3.2", Passes(_NONE), quantiser=AUTO_FP8),
    Family("Llama 3.1 FP8 dynamic, llm-compressor", _LLAMA, "llama-3.2", Passes(_NONE), quantiser=FP8_DYNAMIC),
    Family("Llama 3.1 W8A8, llm-compressor", _LLAMA, "llama-3.2", Passes(_NONE), quantiser=W8A8),
    Family(
        "Llama 3.1 W4A16, llm-compressor", _LLAMA.changed(**_FOUR_BITS), "llama-3.2", Passes(_NONE), quantiser=W4A16
    ),
    Family("Qwen2.5 AWQ", TinyModel("Qwen2", _FOUR_BITS), "qwen2.5", Passes(_NONE), quantiser=AWQ),
    Family("Qwen2.5 GPTQ", TinyModel("Qwen2"), "qwen2.5", Refused(_REST), quantiser=GPTQ),
    Family("Llama 3.1, 4 bits of bitsandbytes", _LLAMA, "llama-3.2", Refused(_REST), quantiser=BITSANDBYTES),
)
"""Checkpoints whose weights are quantised, decided with `model.quantized: Dequantize`."""

REFUSED: Final = (
    Family(
        "Gemma 3, with images",
        TinyModel("Gemma3", GEMMA3.settings, _EYE),
        "gemma-3",
        Refused(
            _FOREIGN.format(
                "Gemma3ForConditionalGeneration",
                "language_model.model.embed_tokens.weight",
                "model.vision_tower.embeddings.patch_embedding.weight",
            )
        ),
    ),
    Family(
        "Llama 4, as published",
        TinyModel("Llama4", _LLAMA4, _LLAMA4_EYE),
        "llama-3",
        Refused(_FOREIGN.format("Llama4ForCausalLM", "language_model.lm_head.weight", "model.embed_tokens.weight")),
        is_nearest=True,
    ),
    Family(
        "Qwen3.5, as published",
        TinyModel("Qwen3_5", _HYBRID, _QWEN_EYE),
        "qwen3",
        Refused(_FOREIGN.format("Qwen3_5ForCausalLM", "lm_head.weight", "model.embed_tokens.weight")),
        is_nearest=True,
    ),
    Family(
        "Qwen2.5-VL",
        TinyModel("Qwen2_5_VL", {}, _QWEN_EYE),
        "qwen2.5",
        Refused(_UNKNOWN.format("qwen2_5_vl")),
    ),
    Family(
        "Mistral Small 3.1 and 3.2",
        TinyModel("Mistral3", {"model_type": "mistral"}, _EYE),
        "mistral-small-3",
        Refused(_UNKNOWN.format("mistral3")),
    ),
    Family(
        "Nemotron-H",
        TinyModel(
            "NemotronH",
            {
                "layers_block_type": ["mamba", "attention"],
                "mamba_num_heads": 4,
                "mamba_head_dim": 16,
                "ssm_state_size": 8,
                "n_groups": 1,
            },
        ),
        "qwen3",
        Refused(_FOREIGN.format("NemotronHForCausalLM", "backbone.embeddings.weight", "model.embeddings.weight")),
        is_nearest=True,
    ),
    Family(
        "Pythia",
        TinyModel("GPTNeoX"),
        "smollm2",
        Refused(
            _UNUSUAL.format("GPTNeoXForCausalLM", "Write some of dense, dense_4h_to_h, dense_h_to_4h, query_key_value.")
        ),
        is_nearest=True,
    ),
    Family(
        "Mamba 2",
        TinyModel("Mamba2", {"num_heads": 32, "head_dim": 8, "state_size": 8, "n_groups": 1}),
        "smollm2",
        Refused(_UNUSUAL.format("Mamba2ForCausalLM", "Write some of in_proj, out_proj.")),
        is_nearest=True,
    ),
    Family(
        "GPT-2",
        TinyModel("GPT2"),
        "smollm2",
        Refused(_UNUSUAL.format("GPT2LMHeadModel", "No module of GPT2LMHeadModel can be adapted")),
        is_nearest=True,
    ),
)
"""Models that are refused with the default settings."""

FAMILIES: Final = (*DENSE, *MIXTURES, *HYBRIDS, *QUANTISED, *REFUSED)
