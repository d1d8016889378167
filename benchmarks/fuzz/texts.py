"""Texts changed as people, editors and transports change them."""

import random
from collections.abc import Callable
from typing import Final

from benchmarks.fuzz.values import ODD_TEXTS, ODD_YAML


def change_text(rng: random.Random, text: str) -> str:
    """The text with one change."""
    return rng.choice(_CHANGES)(rng, text)


def _insert(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(ODD_YAML + ODD_TEXTS) + text[at:]


def _insert_as_value(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = [index for index, line in enumerate(lines) if ":" in line]
    if not at:
        return text
    chosen = rng.choice(at)
    lines[chosen] = lines[chosen].partition(":")[0] + ": " + rng.choice(ODD_YAML)
    return "\n".join(lines)


def _cut(rng: random.Random, text: str) -> str:
    begin = rng.randrange(len(text) + 1)
    return text[:begin] + text[begin + rng.choice((1, 1, 1, 5, 40, 10_000)) :]


def _change_a_character(rng: random.Random, text: str) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + rng.choice("{}[]:,-#&*!|>'\"%@`?~ \t\n\\0aZ\x00\u00e9\u202e\ufffe") + text[at + 1 :]


def _move_a_line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randrange(len(lines) + 1), rng.choice((line, line, "  " + line, line.lstrip())))
    return "\n".join(lines)


def _repeat_a_line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    return "\n".join(lines[:at] + [lines[at]] * rng.choice((2, 2, 50)) + lines[at + 1 :])


_CHANGES: Final[tuple[Callable[[random.Random, str], str], ...]] = (
    *(_insert, _insert_as_value, _insert_as_value, _cut, _change_a_character, _move_a_line, _repeat_a_line),
)
