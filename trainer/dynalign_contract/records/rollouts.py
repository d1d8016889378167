"""What the stage generate writes."""

from typing import Final, NotRequired, TypedDict

from dynalign_contract.records.columns import Ids, Int32, Logprobs, Messages, Text, Texts
from dynalign_contract.records.table import Table


class SampledRow(TypedDict):
    """The columns of a candidate answer that training reads."""

    prompt_id: Text
    candidate: Int32
    """0 .. G-1."""
    prompt_ids: Ids
    completion_ids: Ids
    """The final EOS included if the model wrote one."""
    logprobs: Logprobs
    """One a completion token, of the distribution that was sampled from."""
    finish_reason: Text
    """`stop` or `length`."""
    policy: Text
    """Version of the sampling policy: `base` or `iteration-003`."""


class RolloutRow(SampledRow):
    """One candidate answer to a prompt."""

    text: Text
    """The answer, without a thought."""
    messages: Messages
    thought: NotRequired[Text]
    """What the model thought before it answered; not there in a run whose model does not think."""
    thought_tokens: NotRequired[Int32]
    """Tokens of the completion before the answer."""
    columns: NotRequired[Texts]
    """Column of the supplied prompts -> its value in the prompt's row, as text; a row without one lacks it. Not there
    in a run whose verifiers read no columns."""


ROLLOUT: Final = Table(RolloutRow)
SAMPLED: Final = Table(SampledRow)
"""Files of `ROLLOUT` without the columns that are for people."""
