"""Random models of two layers of many families, with weights that matter."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

VOCABULARY: Final = 61
WINDOW: Final = 4
_SIZES: Final = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_SPREAD: Final = 0.2
"""Standard deviation of the weights; that of embeddings that are the head too is a fifth, or a token followed itself."""
_BOTH_KINDS: Final = ["sliding_attention", "full_attention"]


@dataclass(frozen=True)
class TinyModel:
    """A family and the settings of its configuration that differ from the usual sizes."""

    family: str
    """Its configuration's name in transformers, without Config."""
    settings: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] | None = None
    """Settings of the encoder of a model that reads images too; None: it reads text alone."""

    def changed(self, **settings: Any) -> "TinyModel":
        """The same family with other settings."""
        return TinyModel(self.family, self.settings | settings, self.vision)

    def build(self, *, seed: int = 0, device: str = "cpu") -> Any:
        """The model, its weights drawn from `seed`: norms, biases and sinks too, which transformers leaves at 0 or 1."""
        import torch

        torch.manual_seed(seed)
        with torch.device(device):
            model = self._make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=_SPREAD)
            if model.config.get_text_config().tie_word_embeddings:
                model.get_input_embeddings().weight.mul_(_SPREAD)
        return model.eval()

    def _make(self) -> Any:
        """The model as transformers initialises it."""
        import torch
        import transformers

        kind = getattr(transformers, f"{self.family}Config")
        if self.vision is None:
            config = kind(**_SIZES | self.settings)
            return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        config = kind(text_config=_SIZES | self.settings, vision_config=self.vision)
        return getattr(transformers, f"{self.family}ForConditionalGeneration")(config)

    def write(self, folder: Path, tokenizer: Any, *, seed: int = 0) -> Path:
        """The model as a Hugging Face folder beside a tokenizer, whose vocabulary and named tokens it gets."""
        named = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        self.changed(vocab_size=len(tokenizer), **named).build(seed=seed).save_pretrained(folder)
        return folder


GEMMA2: Final = TinyModel(
    "Gemma2",
    {
        "layer_types": _BOTH_KINDS,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 3,
    },
)
GEMMA3: Final = TinyModel(
    "Gemma3Text", {"layer_types": _BOTH_KINDS, "sliding_window": WINDOW, "query_pre_attn_scalar": 3}
)
MISTRAL: Final = TinyModel("Mistral", {"sliding_window": WINDOW})
QWEN2: Final = TinyModel(
    "Qwen2", {"layer_types": _BOTH_KINDS, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
)
OLMO3: Final = TinyModel("Olmo3", {"layer_types": _BOTH_KINDS, "sliding_window": WINDOW})
GPT_OSS: Final = TinyModel(
    "GptOss",
    {
        "layer_types": _BOTH_KINDS,
        "sliding_window": WINDOW,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
)
COHERE2: Final = TinyModel("Cohere2", {"layer_types": _BOTH_KINDS, "sliding_window": WINDOW, "logit_scale": 0.25})
VAULT_GEMMA: Final = TinyModel("VaultGemma", GEMMA2.settings)
GRANITE_SWA: Final = TinyModel(
    "GraniteSWA", {"layer_types": _BOTH_KINDS, "sliding_window": WINDOW, "logits_scaling": 4.0}
)
PHI_MOE: Final = TinyModel("Phimoe", {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2})
