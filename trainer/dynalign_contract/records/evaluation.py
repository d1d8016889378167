"""What the stage evaluate writes."""

from typing import Final, NotRequired, TypedDict

from dynalign_contract.records.columns import Float32, Float64, Ids, Int32, Int64, Messages, Numbers, Text
from dynalign_contract.records.table import Table


class AnswerRow(TypedDict):
    """A policy's answer to a held-out prompt."""

    prompt_id: Text
    policy: Text
    messages: Messages
    completion_ids: Ids
    finish_reason: Text
    text: Text
    thought: NotRequired[Text]
    """What the model thought before it answered; not there in a run whose model does not think."""
    thought_tokens: NotRequired[Int32]
    """Tokens of the completion before the answer."""
    sampled_with: NotRequired[Text]
    """Digest of everything beside the prompt that a greedy answer depends on. Not there before version 0.2.0."""
    verifiers: NotRequired[Numbers]
    """Verifier -> its value, within its range; NaN where it could not decide. Not there in a run without verifiers."""
    raw_reward: NotRequired[Float32]
    """Reward by the judges alone, 0 to 1, as in the judgements; NaN where they gave none, and for the previous policy.
    Not there before version 0.2.0."""
    reward: NotRequired[Float32]
    """raw_reward, or its weighted mean with the verifiers' values, minus penalties; NaN where there is none."""
    rewarded_by: NotRequired[Text]
    """Digest of everything beside the answer that raw_reward depends on: equal answers with equal digests have equal
    rewards."""


class ComparisonRow(TypedDict):
    """One judge's comparison of two answers to a held-out prompt."""

    prompt_id: Text
    policy: Text
    """Version of the candidate: `iteration-003`."""
    opponent: Text
    """`base` or `previous`."""
    opponent_policy: Text
    """Version of the opponent."""
    judge: Text
    method: Text
    """`Pairwise` or `Pointwise`."""
    first: Float32
    """The judge's preference for the candidate, 0 to 1, when it is shown first."""
    second: Float32
    """Preference when it is shown second; equal to `first` for Pointwise."""
    outcome: Float32
    """1 win, 0.5 tie or inconsistent, 0 loss; NaN if the judge gave no answer."""
    length_difference: Int32
    """Tokens of the candidate minus tokens of the opponent."""


class RatingRow(TypedDict):
    """A policy's rating by all comparisons so far."""

    policy: Text
    points: Float64
    """400 * log10 of the odds of beating the base model, which has 0."""
    low: Float64
    high: Float64
    comparisons: Int64
    """Number of comparisons that it took part in."""


class CapabilityRow(TypedDict):
    """A policy's score of one item of a task."""

    policy: Text
    """`base` or `iteration-003`."""
    task: Text
    """Name in the run file."""
    item: Text
    """`<task of the harness>/<number of its document>`."""
    request: Text
    """Digest of everything that the model was asked for this item."""
    metric: Text
    """The harness's name of the score."""
    score: Float64
    """Higher is better; 0 or 1 for most tasks."""
    response: Text
    """What the model wrote, or its log-likelihoods, for people."""


ANSWER: Final = Table(AnswerRow)
COMPARISON: Final = Table(ComparisonRow)
RATING: Final = Table(RatingRow)
CAPABILITY: Final = Table(CapabilityRow)
