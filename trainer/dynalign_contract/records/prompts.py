"""What the stage prompts writes."""

from typing import Final, NotRequired, TypedDict

from dynalign_contract.records.columns import Float32, Messages, Text, Texts
from dynalign_contract.records.table import Table


class PromptRow(TypedDict):
    """One prompt, for training or held out."""

    prompt_id: Text
    messages: Messages
    source: Text
    """`agents` or `supplied`."""
    facets: Texts
    """Values of the seed: domain, persona, tension, difficulty, format."""
    critic_score: Float32
    """Expected digit, 0 to 9; NaN for supplied prompts."""
    agents: Texts
    """Role -> version of the model that played it."""
    draft_id: Text
    """Row of drafts.parquet that it comes from; empty for supplied prompts."""
    draft: Text
    """The author's text if the reviser has rewritten it; empty otherwise."""
    draft_score: Float32
    """The critic's score of that text; NaN if nothing was rewritten."""
    columns: NotRequired[Texts]
    """Column of the supplied prompts -> its value in the prompt's row, as text; a row without one lacks it. Not there
    in a run whose verifiers read no columns."""


class DraftRow(TypedDict):
    """One text that the author wrote, and what became of it."""

    draft_id: Text
    """Purpose, round and number: `train-0-00017`."""
    facets: Texts
    text: Text
    """Text of the author, cleaned; empty if nothing was left."""
    score: Float32
    """The critic's score; NaN if the draft was dropped before."""
    revised: Text
    """The reviser's text; empty if nothing was rewritten."""
    revised_score: Float32
    agent: Text
    """Agent that decided last: author, curator, critic or reviser."""
    outcome: Text
    """`kept`, or why it was dropped."""
    prompt_id: Text
    """The prompt that it became; empty otherwise."""


PROMPT: Final = Table(PromptRow)
DRAFT: Final = Table(DraftRow)
