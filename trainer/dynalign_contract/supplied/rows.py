"""Reads a row of any known columns as a chat that ends with the user. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from dynalign_contract.supplied.turns import Message, ShapeError, is_turns, name_type, read_text, read_turns

COLUMNS: Final = ("prompt", "messages", "conversations", "conversation")
"""Columns that hold a prompt; the first that is not empty is taken."""
SYSTEM_COLUMNS: Final = ("system", "system_prompt")
"""Columns that hold the system turn of a row that has none."""
SHAPE: Final = (
    'A row needs "prompt" (a text or a list of turns), "messages" or "conversations" (lists of turns such as '
    '{"role": "user", "content": "..."}).'
)
_LOOKALIKES: Final = ("question", "instruction", "problem", "query", "input", "text", "goal")
"""Columns in which other data sets have what is asked."""
_PAIRS: Final = frozenset({"chosen", "rejected"})


class Note(StrEnum):
    """What was made of a row, as a clause for people."""

    ANSWER_LEFT_OFF = "the last answer was left off"
    SEVERAL_COLUMNS = "several columns hold a prompt, and the first of " + ", ".join(COLUMNS) + " was taken"
    SYSTEM_COLUMN = "the system turn came from a column of its own"
    JSON_IN_TEXT = "a list of turns was written as a text"


@dataclass(frozen=True)
class Chat:
    """A prompt of the user's own."""

    turns: tuple[Message, ...]
    """The last one is the user's."""
    notes: frozenset[Note] = frozenset()
    columns: Mapping[str, str] = field(default_factory=dict)
    """Further columns that were asked for -> their values, as text; those that are empty in the row are absent."""


def read_row(row: Any, columns: Sequence[str] = ()) -> Chat:
    """The chat of one row, with the values of further `columns`.

    Raises ShapeError with a clause that follows the name of a file and a line.
    """
    extra = {name: row.get(name) for name in columns} if isinstance(row, Mapping) else {}
    turns, notes = _read_chat(row)
    texts = {name: _read_value(value, name) for name, value in extra.items() if not _is_absent(value)}
    return Chat(tuple(turns), frozenset(notes), texts)


def _is_absent(value: Any) -> bool:
    """Whether a row has no value: null, or NaN, which data frames write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_value(value: Any, column: str) -> str:
    """A value as text: true, false and numbers as JSON writes them."""
    if isinstance(value, str):
        return read_text(value, column)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ShapeError(f"{column} is {name_type(value)}; write a text or a number")


def _read_chat(row: Any) -> tuple[list[Message], set[Note]]:
    if isinstance(row, list):
        row = {"messages": row}
    if not isinstance(row, Mapping):
        raise ShapeError(f"the row is {name_type(row)}, not an object. {SHAPE}")
    columns = [name for name in COLUMNS if row.get(name) is not None]
    if not columns:
        raise ShapeError(_suggest(row))
    turns, notes = _read_column(row[columns[0]], columns[0])
    if len(columns) > 1:
        notes.add(Note.SEVERAL_COLUMNS)
    system = next((row[name] for name in SYSTEM_COLUMNS if isinstance(row.get(name), str) and row[name].strip()), None)
    if system is not None and all(turn["role"] != "system" for turn in turns):
        turns.insert(0, Message(role="system", content=read_text(system, "system")))
        notes.add(Note.SYSTEM_COLUMN)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
        notes.add(Note.ANSWER_LEFT_OFF)
    if not turns:
        raise ShapeError(f"{columns[0]} holds no turn of the user's; the last turn must be the user's")
    if turns[-1]["role"] != "user":
        raise ShapeError(f"{columns[0]} ends with a {turns[-1]['role']} turn; the last turn must be the user's")
    return turns, notes


def _read_column(value: Any, column: str) -> tuple[list[Message], set[Note]]:
    if isinstance(value, str) and (parsed := _parse_turns(value)) is not None:
        return read_turns(parsed, column), {Note.JSON_IN_TEXT}
    if not isinstance(value, str):
        if not isinstance(value, list):
            raise ShapeError(f"{column} is {name_type(value)}; write a text or a list of turns")
        return read_turns(value, column), set()
    text = read_text(value, column)
    if not text.strip():
        raise ShapeError(f"{column} is empty; write a text")
    return [Message(role="user", content=text)], set()


def _parse_turns(text: str) -> list[Any] | None:
    """The list that a text holds as JSON, if it is one of turns."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if is_turns(found) else None


def _suggest(row: Mapping[Any, Any]) -> str:
    there = [str(name) for name, value in row.items() if value is not None]
    named = ", ".join(there[:12]) or "none"
    empty = [name for name in COLUMNS if name in row]
    if empty:
        return f"{empty[0]} is empty (null). {SHAPE}"
    if found := [name for name in _LOOKALIKES if isinstance(row.get(name), str)]:
        return f"the row has the columns {named}; rename {found[0]} to prompt. {SHAPE}"
    if set(there) >= _PAIRS:
        return f"the row has answers (chosen, rejected) and no prompt of its own; add the column prompt. {SHAPE}"
    return f"the row has the columns {named}. {SHAPE}"
