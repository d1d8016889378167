"""Answers as JSON documents of bounded size, strictly by RFC 8259."""

import json
import math
from typing import Final, NoReturn

from pydantic import JsonValue

from dynalign_contract.json_size import measure_json

MAX_CHARACTERS: Final = 65_536
MAX_DEPTH: Final = 64
"""Objects and lists inside each other."""
MAX_VALUES: Final = 4_096
"""Values in all objects and lists: some keywords of a schema compare each with each other."""


class UnreadableJsonError(ValueError):
    """The text is no JSON document, or one beyond the limits."""


def read_json(text: str) -> JsonValue:
    """The document that a text is, white space around it allowed. Raises UnreadableJsonError."""
    if len(text) > MAX_CHARACTERS:
        raise UnreadableJsonError
    try:
        document: JsonValue = json.loads(text.strip(" \t\r\n"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UnreadableJsonError from error
    size = measure_json(document)
    if size.depth > MAX_DEPTH or size.values > MAX_VALUES:
        raise UnreadableJsonError
    return document


def _refuse(constant: str) -> NoReturn:
    raise UnreadableJsonError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise UnreadableJsonError(f"{number} is no number that a float holds")
    return value
