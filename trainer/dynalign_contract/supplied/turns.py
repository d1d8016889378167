"""Turns of a chat in the shapes that data sets have: `role` and `content` (OpenAI, TRL), `from` and `value` (ShareGPT).

Pure. What cannot be read raises ShapeError with a clause that follows the name of a file and a line.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from dynalign_contract.supplied.decoding import describe_bad_character

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_TOOLS: Final = frozenset({"tool", "function", "ipython", "observation", "function_call", "function_response"})
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class ShapeError(ValueError):
    """A row, or a part of it, has no shape that can be read."""


def is_turns(value: Any) -> bool:
    """Whether a JSON value looks like a chat: a list, not empty, of objects that name whose turn it is."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and not {"role", "from"}.isdisjoint(turn) for turn in value)
    )


def read_turns(value: Any, column: str) -> list[Message]:
    """The turns of a list. System turns without content are left out."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ShapeError(f"{column} is {name_type(value)}; write a list of turns")
    turns = [_read_turn(turn, f"{column}[{index}]") for index, turn in enumerate(value)]
    return [turn for turn in turns if turn["content"].strip() or turn["role"] != "system"]


def read_text(value: Any, where: str) -> str:
    """A text, or the texts of content parts joined. Raises ShapeError for anything else, images included."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        text = "".join(_read_part(part, f"{where}[{index}]") for index, part in enumerate(value))
    else:
        raise ShapeError(f"{where} is {name_type(value)}; write a text")
    if trouble := describe_bad_character(text):
        raise ShapeError(f"{where} {trouble}")
    return text


def name_type(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "empty (null)"
    names = ((bool, "true or false"), (int | float, "a number"), (str, "a text"), (Mapping, "an object"))
    return next((name for kind, name in names if isinstance(value, kind)), "a list")


def _read_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise ShapeError(f'{where} is {name_type(turn)}; write a turn as {{"role": ..., "content": ...}}')
    written = _first(turn, ("role", "from"))
    if not isinstance(written, str):
        raise ShapeError(f"{where} has no role; write system, user or assistant")
    role = _ROLES.get(written.strip().lower())
    if role is None:
        if written.strip().lower() in _TOOLS:
            raise ShapeError(f"{where} is a turn of a tool ({written}), which cannot be used; leave the row out")
        raise ShapeError(f"{where} has the role {written[:40]!r}; write system, user or assistant")
    content = _first(turn, ("content", "value", "text"))
    if content is None and _first(turn, ("tool_calls", "function_call")) is not None:
        raise ShapeError(f"{where} calls a tool, which cannot be used; leave the row out")
    if content is None:
        raise ShapeError(f"{where} has no content; write a text")
    text = read_text(content, f"{where}.content")
    if not text.strip() and role == "user":
        raise ShapeError(f"{where}.content is empty; write a text")
    return Message(role=role, content=text)


def _read_part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise ShapeError(f'{where} is {name_type(part)}; write {{"type": "text", "text": ...}}')
    kind = part.get("type") or "text"
    if kind not in _TEXT_PARTS:
        raise ShapeError(f"{where} is of the type {str(kind)[:40]!r}, and only texts can be used; leave the row out")
    return read_text(_first(part, ("text", "content")), f"{where}.text")


def _first(turn: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of these that is there; Parquet has every key in every row, empty where the row has none."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)
