"""Questions whose answer is a single character, asked of a model behind an endpoint: a digit, or the letter A or B."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_trainer.endpoints.client import Endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.models.choices import DIGITS, LETTERS
from dynalign_trainer.runtime.progress import Watch, part_of

_FIRST_TOKENS: Final = 8
"""Room for a character with a word before it."""
LONGEST_REPLY: Final = 64
"""Room, in tokens, that the second try gives an answer."""
_FIRST_TRY: Final = 0.95
"""Share of the progress that is over when only the second tries are left."""


@dataclass(frozen=True)
class Form:
    """Which characters may be the answer, and what stands below a question to get one of them.

    A server begins the answer's turn itself, so what a prefill does in the engine has to be said in words.
    """

    choices: tuple[str, ...]
    order: str
    insistence: str
    """Instead of the order, when a first answer held none of the characters."""

    def ask(self, question: str) -> str:
        """The question as it is put first."""
        return f"{question}\n\n{self.order}"

    def ask_again(self, question: str) -> str:
        """The question as it is put a second time; no wording is longer."""
        return f"{question}\n\n{self.insistence}"


DIGIT: Final = Form(
    choices=DIGITS,
    order="Reply with nothing but one digit from 0 to 9.",
    insistence="Do not explain. Your whole reply must be a single digit from 0 to 9.",
)
LETTER: Final = Form(
    choices=LETTERS,
    order="Reply with nothing but one letter, A or B.",
    insistence="Do not explain. Your whole reply must be a single letter, A or B.",
)


def ask_choices(endpoint: Endpoint, questions: Sequence[str], form: Form, watch: Watch | None) -> list[list[float]]:
    """Log-probabilities of the form's characters as the answer to each question, as `Engine.score_next` gives them.

    They come from the server where it tells them; otherwise the character in the text has 0 and the others have -inf.
    What has not been answered with one of them is asked once more. All are NaN where that was in vain, or the budget is
    used up. Raises as `Endpoint.complete` does.
    """
    found = _ask(endpoint, [form.ask(q) for q in questions], form, _FIRST_TOKENS, part_of(watch, 0.0, _FIRST_TRY))
    failed = [i for i, masses in enumerate(found) if masses is None]
    insistent = [form.ask_again(questions[i]) for i in failed]
    again = _ask(endpoint, insistent, form, LONGEST_REPLY, part_of(watch, _FIRST_TRY, 1.0))
    for i, masses in zip(failed, again, strict=True):
        found[i] = masses
    return [_logarithms(masses, len(form.choices)) for masses in found]


def _ask(
    endpoint: Endpoint, messages: Sequence[str], form: Form, max_tokens: int, watch: Watch | None
) -> list[tuple[float, ...] | None]:
    requests = [
        ChatRequest(message, 0.0, 1.0, max_tokens, seed=0, choices=form.choices, logprobs=True) for message in messages
    ]
    return [None if reply is None else reply.choices for reply in endpoint.complete(requests, watch)]


def _logarithms(masses: tuple[float, ...] | None, count: int) -> list[float]:
    if masses is None:
        return [math.nan] * count
    return [math.log(mass) if mass > 0 else -math.inf for mass in masses]
