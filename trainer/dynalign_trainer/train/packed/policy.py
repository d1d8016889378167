"""The policy on a pack: backbone without padding, head on completion tokens only."""

from typing import Any

import torch
from torch import Tensor, nn

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.train.packed.attention import build_segments
from dynalign_trainer.train.packed.head import chosen_logprobs
from dynalign_trainer.train.packed.layout import Layout
from dynalign_trainer.train.policy.policy import causal_lm

_PLAIN_LAYERS = {"full_attention"}
_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier")


class PackedPolicy(nn.Module):
    """A policy, with an adapter or without, that scores packs; `check_packable` says which models it can carry."""

    def __init__(self, policy: Any, temperature: float) -> None:
        super().__init__()
        self.policy = policy
        self._temperature = temperature

    def forward(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the completion tokens and entropies, shapes (M,), float32."""
        model = causal_lm(self.policy)
        first = next(model.parameters())
        device, dtype = first.device, first.dtype
        hidden = model.base_model(
            input_ids=torch.tensor([layout.ids], device=device),
            position_ids=torch.tensor([layout.positions], device=device),
            use_cache=False,
            segments=build_segments(layout.segments, device, dtype),
        ).last_hidden_state[0]
        predicting = hidden.index_select(0, torch.tensor(layout.predictors, device=device))
        # Where ZeRO-3 spreads the weights, DeepSpeed sees this access and keeps the weight whole until forward ends.
        weight = model.get_output_embeddings().weight
        return chosen_logprobs(predicting, weight, torch.tensor(layout.targets, device=device), self._temperature)


def check_packable(model: Any) -> None:
    """Raise BadConfigError for a model whose layers or head are not computed as `PackedPolicy` computes them."""
    config = model.config.get_text_config()
    layers = sorted(set(getattr(config, "layer_types", None) or ()) - _PLAIN_LAYERS)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    scaled = [name for name in _SCALED_LOGITS if getattr(config, name, None) not in (None, 1.0)]
    head = model.get_output_embeddings()
    reasons = [f"layers of type {name}" for name in layers]
    reasons += [f"sliding_window {window}"] if window and not layers else []
    reasons += [f"{name} {getattr(config, name)}" for name in scaled]
    reasons += ["a bias in its head"] if getattr(head, "bias", None) is not None else []
    reasons += ["attention sinks"] if any("sinks" in name for name, _ in model.named_parameters()) else []
    if reasons:
        raise BadConfigError(
            f"spec.training.backend is Packed, which does not compute {' and '.join(reasons)} of "
            f"{type(model).__name__}. Write backend: TRL."
        )
