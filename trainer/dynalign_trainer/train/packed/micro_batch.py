"""One pack with all that its loss needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynalign_contract.records import BatchRow
from dynalign_contract.settings import LossAggregation
from dynalign_trainer.train.loss import LossTokens, Normaliser
from dynalign_trainer.train.packed.layout import Layout, lay_out
from dynalign_trainer.train.reference_pass import RowLogprobs


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass."""

    layout: Layout
    tokens: LossTokens
    weights: Tensor
    """Weight of each completion token in the step's loss, shape (M,)."""
    is_blank: bool
    """No row: what the layout holds is computed, and counts nothing."""


def build_micro_batch(
    numbers: Sequence[int],
    rows: Sequence[BatchRow],
    surveyed: Mapping[int, RowLogprobs],
    *,
    normaliser: Normaliser,
    aggregation: LossAggregation,
    device: torch.device,
) -> MicroBatch:
    """The rows of these numbers, which have been surveyed and carry loss; none gives a blank."""
    chosen = [rows[number] for number in numbers]
    lengths = [len(row["completion_ids"]) for row in chosen]
    weights = [normaliser.token_weight(aggregation, length) for length in lengths]
    repeats = torch.tensor(lengths, dtype=torch.long)

    def spread(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(repeats).to(device)

    def joined(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([v for sequence in values for v in sequence], dtype=torch.float32, device=device)

    return MicroBatch(
        layout=lay_out(chosen),
        tokens=LossTokens(
            sampler_logprobs=joined([row["logprobs"] for row in chosen]),
            ref_logprobs=joined([surveyed[number].reference for number in numbers]),
            advantages=spread([row["advantage"] for row in chosen]),
            sequence_ids=torch.arange(len(chosen)).repeat_interleave(repeats).to(device),
        ),
        weights=spread(weights),
        is_blank=not chosen,
    )
