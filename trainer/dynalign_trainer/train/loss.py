"""GRPO's loss per token, and the weight of each token (docs/method.md, "Loss"); tokens of all sequences in one row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynalign_contract.settings import LossAggregation, TrainingSettings


@dataclass(frozen=True)
class LossTokens:
    """M completion tokens of S sequences that carry loss; every tensor has shape (M,)."""

    sampler_logprobs: Tensor
    """Recorded log-probabilities: the ratio's denominator."""
    ref_logprobs: Tensor
    """Log-probabilities under the KL reference."""
    advantages: Tensor
    sequence_ids: Tensor
    """Number of each token's sequence, 0 to S - 1."""


@dataclass(frozen=True)
class Normaliser:
    """Normalising constants of an optimiser step's loss, exact over all micro-batches and ranks."""

    tokens: int
    """Tokens that carry loss."""
    sequences: int
    """Sequences that carry loss."""
    constant: int
    """Sequences of a full step times `generation.maxTokens`."""

    def token_weight(self, aggregation: LossAggregation, length: int) -> float:
        """Weight of each token of a sequence of `length` completion tokens; the step's loss is the weighted sum."""
        match aggregation:
            case LossAggregation.TOKEN_MEAN:
                return 1 / self.tokens
            case LossAggregation.SEQUENCE_MEAN | LossAggregation.SEQUENCE_RATIO:
                return 1 / (self.sequences * length)
            case LossAggregation.CONSTANT:
                return 1 / self.constant


def clipped_ratio(logps: Tensor, tokens: LossTokens, training: TrainingSettings) -> Tensor:
    """The ratio that is clipped, shape (M,): per token, or per sequence (GSPO, arXiv 2507.18071)."""
    log_ratio = logps - tokens.sampler_logprobs
    if training.aggregation is not LossAggregation.SEQUENCE_RATIO or not len(log_ratio):
        return log_ratio.exp()
    counts = torch.bincount(tokens.sequence_ids)
    sums = log_ratio.new_zeros(len(counts)).index_add(0, tokens.sequence_ids, log_ratio)
    return (sums / counts).exp()[tokens.sequence_ids]


def token_losses(logps: Tensor, tokens: LossTokens, training: TrainingSettings) -> Tensor:
    """Losses before weighting, shape (M,): -min(r A, clip(r) A), at most -dual A where A < 0, plus beta times k3.

    The dual clip is that of arXiv 1912.09729.
    """
    ratio, clip = clipped_ratio(logps, tokens, training), training.clip
    clipped = ratio.clamp(1 - clip.low, 1 + clip.high)
    losses = -torch.min(ratio * tokens.advantages, clipped * tokens.advantages)
    if clip.dual is not None:
        losses = torch.where(tokens.advantages < 0, losses.clamp(max=-clip.dual * tokens.advantages), losses)
    if training.kl.coefficient > 0:
        difference = tokens.ref_logprobs - logps
        losses = losses + training.kl.coefficient * (difference.exp() - difference - 1)
    return losses
