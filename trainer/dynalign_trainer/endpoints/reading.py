"""Reading a digit or a letter off an answer, and its probability off the tokens' log-probabilities. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_BETWEEN: Final = r"[\s*_`\"'(\[{]*"
_DECLARED: Final = (
    r"(?:\b(?:answer|choice|verdict|winner|preference|score|rating|grade|option|response|one|best|better)\b[*_`\"')\]]*"
    r"\s*(?:[:=]|is\b|would be\b|should be\b)|\b(?:prefer|choose|pick|select|rate (?:it|this|that)|boxed)\b"
    rf"|\bgive (?:it|this|that)\b){_BETWEEN}(?:(?:a|an|as|of|the|response|answer|option|score|rating)\b{_BETWEEN})*"
)
"""Words that announce an answer, right before it."""
_PREFERRED: Final = (
    r"[\s*_`\"')\]]*\b(?:is|was|seems|looks|reads as) (?:clearly |much |slightly |far |by far )?(?:the )?"
    r"(?:better|best|stronger|preferable|preferred|superior|winner)\b|[\s*_`\"')\]]*\bwins\b"
)
"""Words that make what stands right before them the answer."""
_SCALE: Final = re.compile(
    r"\b(?:from |between )?\d\s*(?:to|-|\u2013|and|through)\s*\d+\b(?! out)|(?:/|\bout of|\bof)\s*\d+\b"
)
"""Digits that name the scale, not a place on it: `0 to 9`, `out of 9`, `/9`."""
_ARTICLE: Final = re.compile(
    r"A(?= [a-z])(?! (?:is|was|wins|has|had|because|since|and|or|over|gives|shows|seems|does|looks|reads|as|for|by|but"
    r"|with|would|should|better|more|provides|offers|answers|explains|addresses|stands)\b)"
)
"""The English article at a sentence's beginning, as in `A careful reading ...`."""


@dataclass(frozen=True)
class Alternative:
    """A token that might have stood at a place."""

    token: str
    logprob: float


@dataclass(frozen=True)
class Position(Alternative):
    """A token of a reply, with the likeliest tokens at its place."""

    alternatives: tuple[Alternative, ...] = ()


def read_choices(answer: str, positions: Sequence[Position], choices: Sequence[str]) -> tuple[float, ...] | None:
    """The probability that an answer gives each of some characters, in their order; None where it names none of them.

    `answer` is what is left without thoughts, `positions` are the tokens of the whole reply, thoughts included, or of
    the answer alone. With log-probabilities the probabilities are those at the token that is the character which
    `find_choice` finds; without them, or where no token is this character alone, it has 1 and the others have 0.
    """
    at = find_choice(answer, choices)
    if at is None:
        return None
    position = _position_of(answer[at:], positions)
    if position is not None:
        masses = _masses(position, choices)
        if masses[choices.index(answer[at])] > 0:
            return masses
    return tuple(float(choice == answer[at]) for choice in choices)


def find_choice(answer: str, choices: Sequence[str]) -> int | None:
    """Where in an answer the character stands that it decides for; None where it decides for none.

    That is the one that it announces (`Score: 7`, `I prefer B`, `A is better`), or else the only one that stands alone.
    None stands alone in `10`, `4.5` and `BA`; neither the article in `A good answer` nor the scale in `from 0 to 9` is
    an answer.
    """
    if not choices:
        return None
    one = f"(?:{'|'.join(map(re.escape, choices))})"
    alone = rf"(?<![\w.,])(?P<it>{one})(?!\w|[.,]\d)"
    text = _without(_ARTICLE, _without(_SCALE, answer))
    announced = [
        match.start("it")
        for pattern in (rf"(?i:{_DECLARED}){alone}", rf"{alone}(?i:{_PREFERRED})")
        for match in re.finditer(pattern, text)
    ]
    if announced:
        return max(announced)
    found = [match.start("it") for match in re.finditer(alone, text)]
    return found[0] if len({text[at] for at in found}) == 1 else None


def _without(pattern: re.Pattern[str], text: str) -> str:
    """The text with what matches replaced by as many marks that are neither words nor answers."""
    return pattern.sub(lambda match: "|" * len(match[0]), text)


def _position_of(rest: str, positions: Sequence[Position]) -> Position | None:
    """The token at which the rest of an answer begins; by its characters, as servers differ in white space."""
    texts = ["".join(position.token.split()) for position in positions]
    at = "".join(texts).rfind("".join(rest.split()))
    for text, position in zip(texts, positions, strict=True):
        if 0 <= at < len(text):
            return position
        at -= len(text)
    return None


def _masses(position: Position, choices: Sequence[str]) -> tuple[float, ...]:
    """Probability of each choice among the alternatives; ` 7`, `7` and `**7` are the same digit."""
    logprobs = {other.token: other.logprob for other in (*position.alternatives, position)}
    return tuple(
        math.fsum(math.exp(min(logprob, 0.0)) for token, logprob in logprobs.items() if _bare(token) == choice)
        for choice in choices
    )


def _bare(token: str) -> str:
    return re.sub(r"^[\W_]+|[\W_]+$", "", token)
