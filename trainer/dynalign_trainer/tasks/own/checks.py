"""Whether a response keeps to what it was told. Pure; each kind of check is one function of response and value."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile("[^\\W_]+(?:['\u2019-][^\\W_]+)*")
_SENTENCE: Final = re.compile("[.!?]+(?=\\s|$|[\"'\u201d\u2019)])")
_BULLET: Final = re.compile(r"^\s*[-*•] +\S")
_NUMBERED: Final = re.compile(r"^\s*\d+[.)] +\S")


@dataclass(frozen=True)
class Check:
    """One thing that a response was told to do."""

    kind: str
    """A key of `KINDS`."""
    value: str
    """A count, a word, a list of keys with commas between them, `upper` or `lower`."""


def keeps_all(response: str, checks: Iterable[Check]) -> bool:
    """Whether a response, blanks around it aside, passes every check. An empty one passes none."""
    text = response.strip()
    return bool(text) and all(KINDS[check.kind](text, check.value) for check in checks)


def count_words(text: str) -> int:
    """Words; what apostrophes and hyphens join is one."""
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Ends of sentences, and the unfinished rest if it holds a word."""
    return len(_SENTENCE.findall(text)) + (count_words(_SENTENCE.split(text)[-1]) > 0)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _all_lines(pattern: re.Pattern[str]) -> Callable[[str, str], bool]:
    """Exactly so many lines, each of this form."""
    return lambda text, value: len(_lines(text)) == int(value) and all(map(pattern.match, _lines(text)))


def _contains(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE) is not None


def _has_case(text: str, case: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return bool(letters) and all(letter.isupper() if case == "upper" else letter.islower() for letter in letters)


def _is_json_object(text: str, keys: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # a model may answer with brackets alone
        return False
    return isinstance(found, dict) and sorted(found) == sorted(keys.split(","))


KINDS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "words_at_most": lambda text, value: 0 < count_words(text) <= int(value),
    "words_at_least": lambda text, value: count_words(text) >= int(value),
    "sentences": lambda text, value: count_sentences(text) == int(value),
    "lines": lambda text, value: len(text.splitlines()) == int(value) == len(_lines(text)),
    "bullets": _all_lines(_BULLET),
    "numbered": _all_lines(_NUMBERED),
    "case": _has_case,
    "contains": _contains,
    "lacks": lambda text, word: not _contains(text, word),
    "lacks_text": lambda text, piece: piece not in text.lower(),
    "starts": lambda text, start: text.startswith(start),
    "ends": lambda text, end: len(text) > len(end) and text.endswith(end),
    "json": _is_json_object,
    "digits": lambda text, _: re.fullmatch(r"\d+\.?", text) is not None,
}
"""Kind -> whether a response passes. `contains` and `lacks` mean beginnings of words, in any case."""
