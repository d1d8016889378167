"""Digits and letters as answers: the tokens that write them after a prefill, and the expected digit. Pure."""

import math
from collections.abc import Sequence
from typing import Any, Final

from dynalign_contract.errors import BadInputError

DIGITS: Final = tuple("0123456789")
LETTERS: Final = ("A", "B")


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


def digit_tokens(tokenizer: Any, prefill: str) -> tuple[int, ...]:
    """The ten tokens of the digits 0 to 9 after `prefill`. Raises BadInputError as `choice_tokens` does."""
    return choice_tokens(tokenizer, prefill, DIGITS)


def letter_tokens(tokenizer: Any, prefill: str) -> tuple[int, ...]:
    """The two tokens of A and B after `prefill`. Raises BadInputError as `choice_tokens` does.

    Most tokenizers write a word and the space before it as one token. So the prefill ends without a space, and the
    space belongs to the letter; after a prefill that ends with one, the letter stands alone.
    """
    space = "" if prefill[-1:].isspace() else " "
    return choice_tokens(tokenizer, prefill, [space + letter for letter in LETTERS])


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
