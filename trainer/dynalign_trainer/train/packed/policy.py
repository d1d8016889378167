"""The policy on a pack: backbone without padding, head on completion tokens only."""

from typing import Any

import torch
from torch import Tensor, nn

from dynalign_trainer.models.logit_map import read_logit_map
from dynalign_trainer.train.packed.head import chosen_logprobs
from dynalign_trainer.train.packed.layout import Layout
from dynalign_trainer.train.packed.segments import Segments
from dynalign_trainer.train.policy.policy import causal_lm


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
            segments=Segments(layout.segments, device, dtype),
        ).last_hidden_state[0]
        predicting = hidden.index_select(0, torch.tensor(layout.predictors, device=device))
        # Where ZeRO-3 spreads the weights, DeepSpeed sees these accesses and keeps them whole until forward ends.
        head = model.get_output_embeddings()
        return chosen_logprobs(
            predicting,
            head.weight,
            torch.tensor(layout.targets, device=device),
            self._temperature,
            bias=getattr(head, "bias", None),
            logit_map=read_logit_map(model),
        )
