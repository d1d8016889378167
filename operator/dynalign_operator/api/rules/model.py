"""What is aligned, and to what."""

from collections.abc import Sequence
from typing import Final

from dynalign_contract.settings import Quantized
from dynalign_contract.settings.chat import RESERVED, SWITCHES
from dynalign_contract.sources import BUNDLED_MODELS, BundledSource, HubSource, parse_source
from dynalign_operator.api.rules.rule import Rule


def _names_a_bundled_model(uri: str) -> bool:
    """Whether a `bundled://` address names a model that there is; true for every other address."""
    source = parse_source(uri)
    return not isinstance(source, BundledSource) or source.name in BUNDLED_MODELS


def _names_none_of(names: Sequence[str]) -> str:
    """CEL: no argument of the chat template has one of these names."""
    return f"self.arguments.all(name, !(name in {list(names)}))"


MODEL_RULES: Final = (
    Rule(
        at="spec.model",
        field="uri",
        cel="!self.uri.startsWith('bundled://') || self.uri in ["
        + ", ".join(f"'bundled://{name}'" for name in BUNDLED_MODELS)
        + "]",
        message="names no bundled model; there is " + " and ".join(f"bundled://{name}" for name in BUNDLED_MODELS),
        holds=lambda model: _names_a_bundled_model(model.uri),
    ),
    Rule(
        at="spec.model",
        field="tokenSecretRef",
        cel="!has(self.tokenSecretRef) || self.uri.startsWith('hf://')",
        message="is for models from a hub only; remove it, or write an hf:// uri",
        holds=lambda model: model.token_secret_ref is None or isinstance(parse_source(model.uri), HubSource),
    ),
    Rule(
        at="spec.model",
        field="quantized",
        cel="self.quantized != 'Dequantize' || !self.uri.startsWith('bundled://')",
        message="is Dequantize, but bundled models are not quantised; remove it",
        holds=lambda model: (
            model.quantized is not Quantized.DEQUANTIZE or not isinstance(parse_source(model.uri), BundledSource)
        ),
    ),
    Rule(
        at="spec.model.chat",
        field="arguments",
        cel=_names_none_of(SWITCHES),
        message=f"sets {' or '.join(SWITCHES)}; remove it, and write model.chat.thinking instead",
        holds=lambda chat: chat.arguments.keys().isdisjoint(SWITCHES),
    ),
    Rule(
        at="spec.model.chat",
        field="arguments",
        cel=_names_none_of(RESERVED),
        message="sets what dynalign or transformers pass to every chat template themselves, such as messages, tools or "
        "bos_token; remove it",
        holds=lambda chat: chat.arguments.keys().isdisjoint(RESERVED),
    ),
    Rule(
        at="spec.objective",
        field="",
        cel="!(has(self.builtin) && has(self.configMapRef))",
        message="has both builtin and configMapRef; keep one of them",
        holds=lambda objective: objective.builtin is None or objective.config_map_ref is None,
    ),
)
