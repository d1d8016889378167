"""Token statistics of an optimiser step, exact over micro-batches and ranks: sums first, means at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynalign_contract.settings import ClipSettings


@dataclass(frozen=True)
class StepMeasures:
    """One optimiser step over all ranks; means are over loss tokens."""

    tokens: int
    loss: float
    kl: float
    entropy: float
    ratio_mean: float
    ratio_max: float
    clip_share: float


def measure_tokens(logps: Tensor, entropies: Tensor, inputs: dict[str, Tensor], clip: ClipSettings) -> Tensor:
    """Sums over the loss tokens of one micro-batch, shape (6,): tokens, k3, entropy, ratio, clipped; and the max ratio.

    `logps` and `entropies` have shape (B, T); `inputs` are those of `collate`, reference included.
    A token counts as clipped where the clip takes its gradient away.
    """
    mask = inputs["completion_mask"].bool()
    advantages = inputs["advantages"].unsqueeze(1)
    ratio = torch.exp(logps - inputs["old_per_token_logps"]).masked_fill(~mask, 0.0)
    difference = (inputs["ref_per_token_logps"] - logps).masked_fill(~mask, 0.0)
    k3 = torch.exp(difference) - difference - 1
    clipped = ((ratio < 1 - clip.low) & (advantages < 0)) | ((ratio > 1 + clip.high) & (advantages > 0))
    sums = [mask, k3, entropies.masked_fill(~mask, 0.0), ratio, clipped & mask]
    return torch.stack([*(value.double().sum() for value in sums), ratio.max().double()])


def summarise_step(sums: Tensor, loss: float) -> StepMeasures:
    """Means from the sums of `measure_tokens`, added (the last entry: maximised) over micro-batches and ranks."""
    tokens, kl, entropy, ratio, clipped, ratio_max = sums.tolist()
    count = max(tokens, 1.0)
    return StepMeasures(
        tokens=int(tokens),
        loss=loss,
        kl=kl / count,
        entropy=entropy / count,
        ratio_mean=ratio / count,
        ratio_max=ratio_max,
        clip_share=clipped / count,
    )
