"""Keeping a key out of everything that a server says. Pure."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

REMOVED: Final = "[key]"
_PIECE: Final = 6
"""So many characters of a key in a row give it away, as in `sk-abc***wxyz`; a shorter key counts as a whole."""
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_LONGEST_QUOTE: Final = 200


def remove_key(data: bytes, key: str | None) -> bytes:
    """An answer's body without the whole key, in all forms in which a server may write it."""
    for form in _forms(key):
        data = data.replace(form.encode(), REMOVED.encode())
    return data


def quote_text(text: str, key: str | None) -> str:
    """What a server says, for a message: on one line, without the key or pieces of it, 200 characters at most."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    text = _BEARER.sub(rf"\1 {REMOVED}", text)
    for form in _forms(key):
        text = _remove_pieces(text, form)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."


def _forms(key: str | None) -> Iterator[str]:
    """The key as it is, and as it stands in URLs, JSON, HTML and base64, longest first."""
    if not key:
        return
    forms = {key, quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1], key.encode().hex()}
    for before in ("", "x", "xx", "Bearer ", ":"):  # base64 looks different at each of three places
        encoded = base64.b64encode(f"{before}{key}".encode()).decode()
        inner = encoded[-(-len(before) * 4 // 3) : len(encoded.rstrip("=")) - 1]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    yield from sorted((form for form in forms if len(form) >= min(_PIECE, len(key))), key=len, reverse=True)


def _remove_pieces(text: str, form: str) -> str:
    """The text without every stretch of it that is a piece of the form."""
    size = min(_PIECE, len(form))
    pieces = {form[i : i + size] for i in range(len(form) - size + 1)}
    marked = [False] * len(text)
    for i in range(len(text) - size + 1):
        if text[i : i + size] in pieces:
            marked[i : i + size] = [True] * size
    parts, i = [], 0
    while i < len(text):
        j = i
        while j < len(text) and marked[j] == marked[i]:
            j += 1
        parts.append(REMOVED if marked[i] else text[i:j])
        i = j
    return "".join(parts)
