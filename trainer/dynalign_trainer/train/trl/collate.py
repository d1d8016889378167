"""Rows to the tensors that TRL's GRPO loss reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingSequence:
    """One candidate: T completion tokens, their recorded log-probabilities, and one advantage."""

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    logprobs: Sequence[float]
    """Logprobs of the sampler, shape (T,): the ratio's denominator."""
    advantage: float
    reference: Sequence[float] | None = None
    """Log-probabilities under the KL reference, shape (T,)."""


_BLANK = TrainingSequence(prompt_ids=(0,), completion_ids=(0,), logprobs=(0.0,), advantage=0.0, reference=(0.0,))


def collate(sequences: Sequence[TrainingSequence | None]) -> dict[str, Tensor]:
    """Tensors of one micro-batch: prompts (B, P) padded on the left, completions (B, T) on the right.

    A blank (None) becomes one prompt token and one completion token with completion mask 0, so that it takes no part in
    attention, loss, normalisers or metrics.
    """
    rows = [_BLANK if sequence is None else sequence for sequence in sequences]
    ones = [[1] * len(row.completion_ids) for row in rows]
    for mask, sequence in zip(ones, sequences, strict=True):
        if sequence is None:
            mask[0] = 0
    tensors = {
        "prompt_ids": _pad([row.prompt_ids for row in rows], torch.long, left=True),
        "prompt_mask": _pad([[1] * len(row.prompt_ids) for row in rows], torch.long, left=True),
        "completion_ids": _pad([row.completion_ids for row in rows], torch.long, left=False),
        "completion_mask": _pad(ones, torch.long, left=False),
        "old_per_token_logps": _pad([row.logprobs for row in rows], torch.float32, left=False),
        "advantages": torch.tensor([row.advantage for row in rows], dtype=torch.float32),
    }
    if all(row.reference is not None for row in rows):
        references = [row.reference or () for row in rows]
        tensors["ref_per_token_logps"] = _pad(references, torch.float32, left=False)
    return tensors


def _pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, *, left: bool) -> Tensor:
    width = max(len(row) for row in rows)
    out = torch.zeros(len(rows), width, dtype=dtype)
    for i, row in enumerate(rows):
        start = width - len(row) if left else 0
        out[i, start : start + len(row)] = torch.tensor(row, dtype=dtype)
    return out
