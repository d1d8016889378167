"""Untrusted text as quoted data: delimiters that its author could not know, and control tokens taken apart. Pure."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dynalign_contract.supplied.turns import Message


@dataclass(frozen=True)
class Delimiters:
    """Marks around quoted text that its author could not know."""

    open: str
    close: str
    nonce: str
    """The part of both that must not occur in the quoted text."""


def make_delimiters(seed: int, prompt_id: str) -> Delimiters:
    """Delimiters of one prompt: random for a reader who does not know the seed, the same for all its candidates."""
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


def render_request(messages: Sequence[Message]) -> str:
    """A prompt as text: the bare words of a lone user turn, otherwise one paragraph a turn headed by its role."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


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
