"""How a model's logits follow from its output head: scaled or capped in some families, unchanged in most."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class LogitMap:
    """The map from the head's output z to the logits: z * scale, then cap * tanh(z / cap) where there is a cap."""

    scale: float = 1.0
    cap: float | None = None


PLAIN: Final = LogitMap()


def _capped(config: Any) -> LogitMap:
    return LogitMap(cap=config.final_logit_softcapping)


def _multiplied(config: Any) -> LogitMap:
    return LogitMap(scale=float(config.logit_scale))


def _divided(config: Any) -> LogitMap:
    return LogitMap(scale=1 / config.logits_scaling)


def _scaled_up(config: Any) -> LogitMap:
    return LogitMap(scale=float(config.logits_scaling))


_MAPS: Final[Mapping[str, Callable[[Any], LogitMap]]] = {
    "Gemma2ForCausalLM": _capped,
    "Gemma3ForCausalLM": _capped,
    "VaultGemmaForCausalLM": _capped,
    "NanoChatForCausalLM": _capped,
    "CohereForCausalLM": _multiplied,
    "Cohere2ForCausalLM": _multiplied,
    "Cohere2MoeForCausalLM": _multiplied,
    "GraniteForCausalLM": _divided,
    "GraniteSWAForCausalLM": _divided,
    "GraniteMoeForCausalLM": _divided,
    "GraniteMoeSharedForCausalLM": _divided,
    "GraniteMoeSWAForCausalLM": _divided,
    "HyperCLOVAXForCausalLM": _scaled_up,
}
"""Maps by the name of the class: Granite divides by the setting that HyperCLOVA X multiplies with."""
_SETTINGS: Final = (
    "final_logit_softcapping",
    "logits_soft_cap",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)


def read_logit_map(model: Any) -> LogitMap:
    """The map of a causal language model; `PLAIN` for a class that has none, see `unread_settings`."""
    read = _MAPS.get(type(model).__name__)
    return PLAIN if read is None else read(model.config.get_text_config())


def unread_settings(model: Any) -> list[str]:
    """Settings that change the logits in a way that `read_logit_map` does not know, each as `name value`."""
    if type(model).__name__ in _MAPS:
        return []
    config = model.config.get_text_config()
    return [f"{name} {value}" for name in _SETTINGS if (value := getattr(config, name, None)) not in (None, 1.0)]
