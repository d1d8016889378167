"""PROMPT rows from drafts and chats. Pure."""

import math
from collections.abc import Mapping, Sequence

from dynalign_contract.records import PromptRow
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.prompts.drafts import Draft


def agent_row(prompt_id: str, draft: Draft, versions: Mapping[str, str]) -> PromptRow:
    """The row of a prompt that agents wrote; `versions` is role -> version of the model that plays it."""
    before = draft.before
    return {
        "prompt_id": prompt_id,
        "messages": [{"role": "user", "content": draft.text}],
        "source": "agents",
        "facets": draft.seed,
        "critic_score": draft.score,
        "agents": {role: version for role, version in versions.items() if role != "reviser" or before is not None},
        "draft_id": draft.draft_id,
        "draft": before.text if before is not None else "",
        "draft_score": before.score if before is not None else math.nan,
    }


def supplied_row(prompt_id: str, chat: Sequence[Message]) -> PromptRow:
    """The row of a prompt that the user wrote."""
    return {
        "prompt_id": prompt_id,
        "messages": list(chat),
        "source": "supplied",
        "facets": {},
        "critic_score": math.nan,
        "agents": {},
        "draft_id": "",
        "draft": "",
        "draft_score": math.nan,
    }
