"""Digits and letters as answers: the tokens that write them after a prefill, and scores from their probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dynalign_contract.errors import BadInputError


@dataclass(frozen=True)
class Choices:
    """A closed set of answers, each a single character, and the instruction to give one of them.

    The instructions are for models that take no prefill.
    """

    answers: tuple[str, ...]
    instruction: str
    insistence: str
    """Replaces the instruction after a first answer that was none of the choices."""
    spaced: bool = False
    """A space before the answer belongs to its token, unless the prefill already ends with one."""

    def instruct(self, question: str) -> str:
        """The question with the instruction."""
        return f"{question}\n\n{self.instruction}"

    def insist(self, question: str) -> str:
        """The question as it is asked a second time; no wording is longer."""
        return f"{question}\n\n{self.insistence}"

    def tokens(self, tokenizer: Any, lead: str) -> tuple[int, ...]:
        """The token of each answer after `lead`. Raises BadInputError as `choice_tokens` does."""
        space = " " if self.spaced and not lead[-1:].isspace() else ""
        return choice_tokens(tokenizer, lead, [space + answer for answer in self.answers])


DIGITS: Final = Choices(
    answers=tuple("0123456789"),
    instruction="Reply with nothing but one digit from 0 to 9.",
    insistence="Do not explain. Your whole reply must be a single digit from 0 to 9.",
)
LETTERS: Final = Choices(
    answers=("A", "B"),
    instruction="Reply with nothing but one letter, A or B.",
    insistence="Do not explain. Your whole reply must be a single letter, A or B.",
    spaced=True,
)
"""A prefill ends without a space: most tokenizers write a word and the space before it as one token."""


class DigitLeads(NamedTuple):
    """The texts right before a judge's digit."""

    plain: str
    """After a question."""
    insistent: str
    """After a question that is asked a second time."""
    after_reasons: str
    """After reasons that the judge has written."""


def digit_leads(prefill: str) -> DigitLeads:
    """The texts right before a judge's digit, from the beginning of the answer that an objective gives."""
    return DigitLeads(prefill, f"I reply with one digit. {prefill}", f"\n{prefill}")


def choice_tokens(tokenizer: Any, prefill: str, choices: Sequence[str]) -> tuple[int, ...]:
    """The one token that each choice adds to `prefill`, in the order of `choices`.

    Raises BadInputError when the tokenizer does not write every choice as exactly one token of its own after the
    unchanged tokens of the prefill; the judge's distribution over the choices could not be read off then.
    """
    before = tokenizer.encode(prefill, add_special_tokens=False)
    found = []
    for choice in choices:
        after = tokenizer.encode(prefill + choice, add_special_tokens=False)
        if after[:-1] != before:
            raise BadInputError(
                f"the model's tokenizer cannot write {choice!r} as exactly one token after the prefill {prefill!r}: it "
                f"reads the prefill as {tokenizer.convert_ids_to_tokens(before)} and both together as "
                f"{tokenizer.convert_ids_to_tokens(after)}. Change the objective's prefill, for example its last space."
            )
        found.append(after[-1])
    if len(set(found)) != len(choices):
        raise BadInputError(
            f"the model's tokenizer writes some of {list(choices)} with the same token after the prefill {prefill!r}. "
            "Change the objective's prefill or use another model."
        )
    return tuple(found)


def expected_digit(logprobs: Sequence[float]) -> tuple[float, float]:
    """Expected digit and its mass, from the log-probabilities of the digits 0 to 9 (shape: 10).

    The expectation is sum(d * p(d)) / sum(p(d)), between 0 and 9 (NaN when the digits have no probability at all or a
    log-probability is NaN); the mass is sum(p(d)), the probability that the next token is a digit (docs/method.md,
    "Expected score").
    """
    largest = max(logprobs)
    if not math.isfinite(largest) or any(math.isnan(value) for value in logprobs):
        return math.nan, 0.0
    weights = [math.exp(value - largest) for value in logprobs]
    total = sum(weights)
    expected = sum(digit * weight for digit, weight in enumerate(weights)) / total
    return expected, min(total * math.exp(largest), 1.0)


def preference_for_first(a: float, b: float, min_mass: float) -> float:
    """The preference for the answer shown first, 0 to 1, from the log-probabilities of A and B.

    NaN when one of them is NaN, or when both together have less probability than `min_mass`.
    """
    mass = math.exp(a) + math.exp(b)
    return math.exp(a) / mass if mass > 0 and mass >= min_mass else math.nan
