"""What the judge reads: context first, the aspect's question last, the candidate as quoted data. Pure.

The context is the same for all aspects of a candidate, and its beginning the same for all candidates of a prompt, so an
engine with a prefix cache reads both once.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from dynalign_contract.objective import Aspect, Objective

RATIONALE_PREFILL: Final = "Reasons: "

_INSIST: Final = "Your reply must be nothing but one digit from 0 to 9."
_INSIST_PREFILL: Final = "I reply with one digit. "
_REASON: Final = "First give your reasons in one or two sentences, then the digit."


@dataclass(frozen=True)
class Delimiters:
    """Marks around quoted text that its author could not know."""

    open: str
    close: str
    nonce: str
    """The part of both that must not occur in the quoted text."""


@dataclass(frozen=True)
class Wording:
    """How a question is put: the user's message and the beginning of the judge's answer."""

    message: str
    prefill: str


def make_delimiters(seed: int, prompt_id: str) -> Delimiters:
    """Delimiters of one prompt: random to whoever does not know the seed, the same for all its candidates."""
    nonce = hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()[:10]
    return Delimiters(open=f"<<<{nonce}", close=f"{nonce}>>>", nonce=nonce)


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Strings that a tokenizer reads as control tokens (turn ends and the like) wherever they stand in a text."""
    added = tokenizer.added_tokens_decoder.values()
    found = {token.content for token in added if token.special or token.content.startswith("<")}
    return tuple(sorted({*found, *map(str, tokenizer.all_special_tokens)}, key=lambda token: (-len(token), token)))


def quote(text: str, forbidden: Sequence[str]) -> str:
    """The text with a space inside every forbidden string, so that it can neither end its quotation nor its turn."""
    for token in forbidden:
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def render_request(messages: Sequence[dict[str, str]]) -> str:
    """A prompt as text: the bare words of a lone user turn, otherwise one paragraph a turn headed by its role."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def build_context(
    objective: Objective,
    messages: Sequence[dict[str, str]],
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


def ask_plainly(objective: Objective, context: str, aspect: Aspect) -> Wording:
    """The objective's own wording."""
    return Wording(f"{context}\n\n{_question(objective, aspect)}", objective.judge.prefill)


def ask_again(objective: Objective, context: str, aspect: Aspect) -> Wording:
    """The wording of a retry: it insists on a digit, in the question and at the beginning of the answer."""
    message = f"{context}\n\n{_question(objective, aspect)} {_INSIST}"
    return Wording(message, _INSIST_PREFILL + objective.judge.prefill)


def ask_for_reasons(objective: Objective, context: str, aspect: Aspect) -> Wording:
    """The wording of a vote: reasons are sampled first; `closing` brings the judge to its digit."""
    return Wording(f"{context}\n\n{_question(objective, aspect)} {_REASON}", RATIONALE_PREFILL)


def closing(objective: Objective) -> str:
    """What is put after sampled reasons, right before the digit."""
    return f"\n{objective.judge.prefill}"


def longest_fitting(longest: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number from 0 to `longest` that fits; None when not even 0 does.

    `fits` must not become true again once it is false; a bisection asks it about log2(longest) times.
    """
    if not fits(0):
        return None
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _question(objective: Objective, aspect: Aspect) -> str:
    return Template(objective.judge.question).substitute(
        title=aspect.title, definition=aspect.definition, low=aspect.low, middle=aspect.middle, high=aspect.high
    )
