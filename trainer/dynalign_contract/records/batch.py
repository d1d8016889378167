"""What training consumes."""

from typing import Final, TypedDict

from dynalign_contract.records.columns import Flag, Float32, Ids, Int32, Logprobs, Text
from dynalign_contract.records.table import Table


class BatchRow(TypedDict):
    """One sequence of an optimiser step."""

    step: Int32
    """Optimiser step that consumes the row first; later epochs take the same steps in another order."""
    prompt_id: Text
    candidate: Int32
    prompt_ids: Ids
    completion_ids: Ids
    logprobs: Logprobs
    reward: Float32
    advantage: Float32
    masked: Flag
    """Carries no loss: truncated, without a reward, or filler that completes a step."""


BATCH: Final = Table(BatchRow)
