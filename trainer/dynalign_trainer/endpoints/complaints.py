"""What a server says is wrong, wherever it puts it: in an error's status or inside a success. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_CODES: Final = {
    "rate_limit": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "overloaded": 503,
    "unavailable": 503,
    "timeout": 504,
    "server_error": 500,
    "internal": 500,
    "invalid_api_key": 401,
    "authentication": 401,
    "unauthorized": 401,
    "permission": 403,
    "insufficient_quota": 402,
    "billing": 402,
    "not_found": 404,
    "invalid_request": 400,
    "context_length": 400,
    "unsupported": 400,
    "bad_request": 400,
    "invalid_argument": 400,
}
"""Beginnings or parts of codes in words -> status."""
_UNKNOWN: Final = 502
"""The status of an error inside a success that gives none: whether it passes is not known, so it is tried again."""
_LARGEST_STATUS: Final = 599


@dataclass(frozen=True)
class Refusal:
    """Why a server does not answer a request."""

    status: int
    message: str
    """The server's own words."""
    parameter: str = ""
    """The parameter that it names in a field of its own."""

    def names(self, parameter: str) -> bool:
        """Whether the message names a parameter of the request."""
        return re.search(rf"\b{parameter}\b", self.message, re.IGNORECASE) is not None


def read_refusal(status: int, body: bytes) -> Refusal | None:
    """The refusal in a response; None where a success holds no error.

    An error inside a success has the status that its code means.
    """
    found = _parse(body)
    error = _find_error(found)
    if 200 <= status < 300:
        if error is None:
            return None
        status = _status_of(error) or _status_of(found) or _UNKNOWN
    message = _message_of(error) or _message_of(found) or body.decode("utf-8", "replace").strip()
    return Refusal(status, message, _parameter_of(error) or _parameter_of(found))


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _find_error(found: Any) -> Any:
    """The error in a body: its own, its only choice's, or the body itself where it calls itself one."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return None
    if found.get("error"):
        return found["error"]
    if found.get("object") == "error" or found.get("type") == "error":
        return found
    choices = found.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("error") or None
    return None


def _message_of(error: Any) -> str:
    if isinstance(error, str):
        return error
    if not isinstance(error, Mapping):
        return ""
    for name in ("message", "msg", "detail", "error"):
        said = error.get(name)
        if isinstance(said, str) and said:
            return said
        if isinstance(said, list) and said and isinstance(said[0], Mapping):  # pydantic's, as FastAPI sends them
            return ", ".join(f"{_location(part)}: {part.get('msg', '')}" for part in said if isinstance(part, Mapping))
    return ""


def _parameter_of(error: Any) -> str:
    if not isinstance(error, Mapping):
        return ""
    if isinstance(error.get("param"), str):
        return str(error["param"])
    detail = error.get("detail")
    if isinstance(detail, list) and len(detail) == 1 and isinstance(detail[0], Mapping):
        return _location(detail[0])
    return ""


def _location(part: Mapping[str, Any]) -> str:
    place = part.get("loc")
    names = [str(name) for name in place] if isinstance(place, Sequence) and not isinstance(place, str) else []
    return ".".join(name for name in names if name != "body")


def _status_of(error: Any) -> int | None:
    """The status that an error's code means; None where it gives none."""
    if not isinstance(error, Mapping):
        return None
    told = [error.get(name) for name in ("status", "status_code", "code", "type")]
    for value in told:
        if isinstance(value, int | str) and str(value).isdecimal() and 300 <= int(value) <= _LARGEST_STATUS:
            return int(value)
    words = " ".join(str(value).lower() for value in told if isinstance(value, str))
    return next((status for code, status in _CODES.items() if code in words.replace(" ", "_")), None)
