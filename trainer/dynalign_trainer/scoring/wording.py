"""Questions to a judge: context first, the aspect's question last, candidates as quoted data. Pure.

The context is the same for all aspects of a candidate, and its beginning the same for all candidates of a prompt, so an
engine with a prefix cache reads both once.
"""

from collections.abc import Sequence
from string import Template
from typing import Final

from dynalign_contract.objective import Aspect, Objective
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_model import ChatTurn
from dynalign_trainer.models.choices import digit_leads
from dynalign_trainer.models.quoting import Delimiters, quote, render_request

RATIONALE_PREFILL: Final = "Reasons: "

_INSIST: Final = "Your reply must be nothing but one digit from 0 to 9."
_REASON: Final = "First give your reasons in one or two sentences, then the digit."


def build_context(
    objective: Objective,
    messages: Sequence[Message],
    candidate: str,
    *,
    delimiters: Delimiters,
    forbidden: Sequence[str],
) -> str:
    """Everything but the question. `forbidden` are the tokenizer's control tokens; the delimiters are added here."""
    barred = (delimiters.nonce, *forbidden)
    return Template(objective.judge.context).substitute(
        preamble=objective.preamble,
        rubric=objective.rubric,
        prompt=quote(render_request(messages), barred),
        candidate=quote(candidate, barred),
        open=delimiters.open,
        close=delimiters.close,
    )


def build_comparison(
    objective: Objective,
    messages: Sequence[Message],
    a: str,
    b: str,
    *,
    delimiters: Delimiters,
    forbidden: Sequence[str],
) -> str:
    """The message that asks which of the answers A and B is better; both are quoted data."""
    barred = (delimiters.nonce, *forbidden)
    return Template(objective.compare.message).substitute(
        preamble=objective.preamble,
        rubric=objective.rubric,
        prompt=quote(render_request(messages), barred),
        a=quote(a, barred),
        b=quote(b, barred),
        open=delimiters.open,
        close=delimiters.close,
    )


def ask_plainly(objective: Objective, context: str, aspect: Aspect) -> ChatTurn:
    """The question in the objective's own wording."""
    return ChatTurn(f"{context}\n\n{_question(objective, aspect)}", objective.judge.prefill)


def ask_again(objective: Objective, context: str, aspect: Aspect) -> ChatTurn:
    """The wording of a retry: it insists on a digit, in the question and at the beginning of the answer."""
    message = f"{context}\n\n{_question(objective, aspect)} {_INSIST}"
    return ChatTurn(message, digit_leads(objective.judge.prefill).insistent)


def ask_for_reasons(objective: Objective, context: str, aspect: Aspect) -> ChatTurn:
    """The wording of a vote: reasons are sampled first; `closing` brings the judge to its digit."""
    return ChatTurn(f"{context}\n\n{_question(objective, aspect)} {_REASON}", RATIONALE_PREFILL)


def closing(objective: Objective) -> str:
    """The text between sampled reasons and the digit."""
    return digit_leads(objective.judge.prefill).after_reasons


def _question(objective: Objective, aspect: Aspect) -> str:
    return Template(objective.judge.question).substitute(
        title=aspect.title, definition=aspect.definition, low=aspect.low, middle=aspect.middle, high=aspect.high
    )
