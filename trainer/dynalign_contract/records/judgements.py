"""What the stage judge writes."""

from typing import Final, NotRequired, TypedDict

from dynalign_contract.records.columns import Float32, Int32, Numbers, Scores, Text
from dynalign_contract.records.table import Table


class JudgementRow(TypedDict):
    """The judge's scores of one candidate."""

    prompt_id: Text
    candidate: Int32
    scores: Scores
    raw_reward: Float32
    """Aggregate over the aspects, 0 to 1, before penalties; NaN if a score is missing."""
    penalties: Numbers
    """Name -> what is subtracted."""
    reward: Float32
    """raw_reward, or its weighted mean with the verifiers' values, minus penalties; training drops NaN and never reads
    it as 0."""
    reward_error: Float32
    """Standard error of reward by the votes' spread; NaN for fewer than two."""
    retries: Int32
    judge: Text
    """Version of the judging model."""
    verifiers: NotRequired[Numbers]
    """Verifier -> its value, within its range; NaN where it could not decide. Not there in a run without verifiers."""


class CanaryRow(TypedDict):
    """The judge's scores of a worthless answer."""

    prompt_id: Text
    kind: Text
    """`empty`, `master_key`, `shuffled` and others."""
    attack: Text
    """Id in the collection of attacks for `injected`; empty otherwise."""
    text: Text
    scores: Scores
    reward: Float32
    judge: Text


JUDGEMENT: Final = Table(JudgementRow)
CANARY: Final = Table(CanaryRow)
