"""Sizes of a model, from its configuration: weights, weights used by a token, and the key-value cache of a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_EXPERT_FIELDS: Final = ("num_experts", "num_local_experts", "n_routed_experts")
_WITH_SINKS: Final = ("gpt_oss",)
"""Kinds of models whose attention has sinks, which no field says."""


class UnknownShapeError(ValueError):
    """The configuration lacks a number that the sizes follow from."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder."""

    parameters: int
    """All weights, embeddings included."""
    active: int
    """Weights that one token is multiplied with: of a mixture of experts, those of the chosen ones; without the input
    embedding, which is a look-up."""
    experts: int
    """Weights of all experts; 0 for a dense model."""
    expert_share: float
    """Experts that a token is sent to, divided by all of them; 1 for a dense model."""
    layers: int
    hidden: int
    attention_width: int
    """Sum over layers of the numbers that all query heads of a token have."""
    kv_values: int
    """Numbers that one token adds to the key-value cache, over all layers."""
    vocabulary: int
    adapter_width: int
    """Sum of inputs and outputs of the projections that LoRA adapts by default: weights of an adapter of rank 1."""
    keeps_scores: bool = False
    """Whether attention caps its scores or has sinks: training then keeps all scores for the backward pass."""

    @property
    def layer_outputs(self) -> float:
        """Values that all projections of one layer give for one token, of those that it is sent to."""
        return (self.active - self.vocabulary * self.hidden) / self.layers / self.hidden


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes of a model, from its `config.json`.

    Exact but for biases for the dense and the routed decoders of the usual kind: gated MLP, grouped-query attention.
    Raises UnknownShapeError for other kinds, latent attention and state-space layers among them.
    """
    text = config.get("text_config", config)
    strange = [name for name in ("kv_lora_rank", "layers_block_type", "linear_num_value_heads") if text.get(name)]
    if strange:
        raise UnknownShapeError(f"config.json has {strange[0]}: the sizes of such layers are not known here")
    try:
        hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
        vocabulary, inner = text["vocab_size"], text["intermediate_size"]
    except KeyError as error:
        raise UnknownShapeError(f"config.json has no {error.args[0]}") from None
    kv_heads = text.get("num_key_value_heads") or heads
    width = text.get("head_dim") or hidden // heads
    attention = 2 * hidden * width * (heads + kv_heads)
    adapter = 2 * (hidden + heads * width) + 2 * (hidden + kv_heads * width)
    experts = next((text[name] for name in _EXPERT_FIELDS if text.get(name)), 0)
    norms = 2 * hidden
    table = vocabulary * hidden
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    if experts:
        chosen = text.get("num_experts_per_tok") or text.get("experts_per_token") or 1
        one = 3 * hidden * (text.get("moe_intermediate_size") or inner)
        mlp, mlp_active, router = experts * one, chosen * one, hidden * experts
    else:
        chosen, mlp, router = 1, 3 * hidden * inner, 0
        mlp_active = mlp
        adapter += 3 * (hidden + inner)
    body = layers * (attention + mlp + router + norms) + hidden
    return ModelShape(
        parameters=body + table * (1 if tied else 2),
        active=layers * (attention + mlp_active + router) + table,
        experts=layers * mlp if experts else 0,
        expert_share=chosen / experts if experts else 1.0,
        layers=layers,
        hidden=hidden,
        attention_width=layers * heads * width,
        kv_values=2 * layers * kv_heads * width,
        vocabulary=vocabulary,
        adapter_width=layers * adapter,
        keeps_scores=bool(text.get("attn_logit_softcapping")) or text.get("model_type") in _WITH_SINKS,
    )
