"""GRPO's loss in float64, written from the formulas of docs/method.md ("Loss") and from nothing else."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dynalign_contract.records import RolloutRow
from dynalign_contract.settings import AdvantageScale, KlReference, LossAggregation, TrainingSettings
from support.training_data import score


def reference_advantages(rewards: Sequence[float], scale: AdvantageScale, every_reward: Sequence[float]) -> list[float]:
    scored = [r for r in rewards if not math.isnan(r)]
    divisor = {
        AdvantageScale.GROUP: lambda: statistics.stdev(scored) + 1e-4,
        AdvantageScale.BATCH: lambda: statistics.stdev([r for r in every_reward if not math.isnan(r)]) + 1e-4,
        AdvantageScale.NONE: lambda: 1.0,
    }[scale]()
    return [(r - sum(scored) / len(scored)) / divisor for r in rewards]


def reference_loss(
    model: Any,
    rows: Sequence[tuple[RolloutRow, float]],
    settings: TrainingSettings,
    *,
    references: Sequence[Any],
    full_step: int,
    max_tokens: int,
) -> Any:
    """Loss of one optimiser step from (rollout, advantage) pairs that carry loss and their reference log-probabilities."""
    import torch

    sums, lengths = [], []
    for (row, advantage), reference in zip(rows, references, strict=True):
        logp = score(model, row)
        log_ratio = logp - torch.tensor(row["logprobs"], dtype=torch.float64)
        if settings.aggregation is LossAggregation.SEQUENCE_RATIO:
            log_ratio = log_ratio.mean().expand(len(logp))
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - settings.clip.low, 1 + settings.clip.high)
        gain = torch.min(ratio * advantage, clipped * advantage)
        if settings.clip.dual is not None and advantage < 0:
            gain = gain.clamp(min=settings.clip.dual * advantage)
        token = -gain
        log_quotient = reference - logp
        token = token + settings.kl.coefficient * (log_quotient.exp() - log_quotient - 1)
        sums.append(token.sum())
        lengths.append(len(token))
    match settings.aggregation:
        case LossAggregation.TOKEN_MEAN:
            return sum(sums) / sum(lengths)
        case LossAggregation.SEQUENCE_MEAN | LossAggregation.SEQUENCE_RATIO:
            return sum(s / n for s, n in zip(sums, lengths, strict=True)) / len(sums)
        case LossAggregation.CONSTANT:
            return sum(sums) / (full_step * max_tokens)


def reference_logprobs(model: Any, base: Any, row: RolloutRow, which: KlReference, start: Mapping[str, Any]) -> Any:
    """Log-probabilities, shape (T,), of the base model or of the weights that the iteration started from."""
    import torch

    with torch.no_grad():
        if which is KlReference.BASE:
            return score(base, row)
        load_parameters(model, start)
        return score(model, row)


def load_parameters(model: Any, values: Mapping[str, Any]) -> None:
    """Set named parameters of a float64 model."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in values:
                parameter.copy_(values[name].double())
