"""The critic: scores drafts by the expected digit of each of its criteria."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template

from dynalign_contract.objective import CriticTemplate, Objective
from dynalign_trainer.models.chat_model import ChatModel, ChatTurn
from dynalign_trainer.models.choices import DIGITS, expected_digit
from dynalign_trainer.models.quoting import Delimiters, quote
from dynalign_trainer.prompts.drafts import Draft
from dynalign_trainer.runtime.progress import Watch


@dataclass(frozen=True)
class Quotation:
    """How a draft is quoted, so that it can end neither its quotation nor its turn."""

    delimiters: Delimiters
    """Delimiters of all drafts of a stage, which keep the prompts' beginnings equal; no author has seen them."""
    forbidden: tuple[str, ...]
    """The tokenizer's control tokens."""

    def quote(self, text: str) -> str:
        """The text with whatever could end it broken up."""
        return quote(text, (self.delimiters.nonce, *self.forbidden))


def score_drafts(
    model: ChatModel, objective: Objective, drafts: Sequence[Draft], quotation: Quotation, *, watch: Watch
) -> list[Draft]:
    """The drafts with their scores, in order; unchanged when the objective has no critic."""
    critic = objective.critic
    if critic is None or not drafts:
        return list(drafts)
    turns = [
        ChatTurn(message, critic.prefill)
        for draft in drafts
        for message in critic_messages(critic, objective.preamble, draft.text, quotation)
    ]
    model.forget()
    scores = [expected_digit(row)[0] for row in model.choose(turns, DIGITS, watch)]
    count = len(critic.criteria)
    return [
        replace(draft, score=math.fsum(scores[i * count : (i + 1) * count]) / count) for i, draft in enumerate(drafts)
    ]


def critic_messages(critic: CriticTemplate, preamble: str, text: str, quotation: Quotation) -> list[str]:
    """What the critic is asked about one draft, a message for each criterion; they differ only at their ends."""
    marks = quotation.delimiters
    shown = Template(critic.message).safe_substitute(
        preamble=preamble, prompt=quotation.quote(text), open=marks.open, close=marks.close
    )
    return [f"{shown}\n\n{question}" for question in critic.criteria.values()]
