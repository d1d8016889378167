"""A file of prompts, JSON lines, a JSON array or Parquet: all of its rows, or a sentence for each kind of trouble."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.decoding import UndecodableError, decode_text, split_lines
from dynalign_contract.supplied.rows import COLUMNS, SHAPE, SYSTEM_COLUMNS, Chat, Note, read_row
from dynalign_contract.supplied.turns import Message, ShapeError, is_turns

SUFFIXES: Final = (".jsonl", ".json", ".parquet")
_SHOWN: Final = 3
"""Rows in trouble that are spoken of; the others are counted."""
_NAMED: Final = 8


@dataclass(frozen=True)
class SuppliedRow:
    """A chat and where it was written."""

    place: str
    """`line 4` or `row 4`, 1-based."""
    chat: Chat

    @property
    def turns(self) -> tuple[Message, ...]:
        """The chat's turns; the last one is the user's."""
        return self.chat.turns


@dataclass(frozen=True)
class SuppliedFile:
    """All prompts of a file, in order."""

    path: Path
    rows: tuple[SuppliedRow, ...]

    @property
    def chats(self) -> list[tuple[Message, ...]]:
        """The chats alone."""
        return [row.turns for row in self.rows]

    def notes(self) -> list[str]:
        """What was made of the rows, a sentence a kind."""
        counts = Counter(note for row in self.rows for note in row.chat.notes)
        return [f"{self.path}: in {counts[note]} of {len(self.rows)} rows {note}." for note in Note if counts[note]]


def read_supplied(path: Path, field: str, columns: Sequence[str] = ()) -> SuppliedFile:
    """Read all rows, with the values of further `columns`; `field` names the file in the run file, without its `uri`.

    Raises BadInputError naming the file, and the lines or rows that cannot be used.
    """
    if not path.is_file():
        raise BadInputError(f"{field}.uri: there is no file {path}. Name a {_or(SUFFIXES)} file. {SHAPE}")
    if path.suffix not in SUFFIXES:
        raise BadInputError(f"{field}.uri: {path} is no {_or(SUFFIXES)} file. {SHAPE}")
    rows: list[SuppliedRow] = []
    troubles: list[tuple[str, str]] = []
    for place, data in _read_parquet(path, columns) if path.suffix == ".parquet" else _read_json(path):
        try:
            rows.append(SuppliedRow(place, read_row(data, columns)))
        except ShapeError as error:
            troubles.append((place, str(error)))
    if troubles:
        raise BadInputError(_tell(path, troubles, len(rows) + len(troubles)))
    if not rows:
        raise BadInputError(f"{path} holds no prompts. Add some, or remove {field} from the run file. {SHAPE}")
    return SuppliedFile(path, tuple(rows))


def _tell(path: Path, troubles: Sequence[tuple[str, str]], total: int) -> str:
    """The first row in trouble of each kind, and how many there are."""
    firsts: dict[str, str] = {}
    for place, text in troubles:
        firsts.setdefault(text, place)
    shown = list(firsts.items())[:_SHOWN]
    sentences = " ".join(f"{path}, {place}: {_end(text)}" for text, place in shown)
    if len(troubles) == 1:
        return sentences
    places = ", ".join(place for place, _ in troubles[:_NAMED]) + (", ..." if len(troubles) > _NAMED else "")
    return f"{sentences} {len(troubles)} of {total} rows cannot be used: {places}."


def _end(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    except UndecodableError as error:
        raise BadInputError(f"{path} {error}") from error
    if (array := _parse_array(text)) is not None:
        yield from ((f"row {number}", row) for number, row in enumerate(array, start=1))
        return
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInputError(_explain_line(path, text, number, error)) from error
        yield f"line {number}", row


def _parse_array(text: str) -> list[Any] | None:
    """The rows of a file that is one JSON array of objects or texts; None where it is not."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [found] if is_turns(found) else list(found)  # a single line that is a list of turns is one row


def _explain_line(path: Path, text: str, number: int, error: Exception) -> str:
    if text.lstrip().startswith("{") and number <= len(split_lines(text)):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None
        if isinstance(whole, dict):
            lists = [str(name) for name, value in whole.items() if isinstance(value, list)]
            hint = f"; it has its rows in {lists[0]!r}, perhaps: write that list alone" if lists else ""
            return f"{path} is one JSON object over several lines{hint}. Write one JSON object a line. {SHAPE}"
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return f"{path}, line {number} is not JSON ({why}). Write one JSON object a line."


def _read_parquet(path: Path, further: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415 - it comes with the stages; a file of JSON is read without
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        names = file.schema_arrow.names
        columns = [name for name in (*COLUMNS, *SYSTEM_COLUMNS, *further) if name in names]
        if set(columns).isdisjoint(COLUMNS):
            first = next(file.iter_batches(batch_size=1, use_threads=False), None)
            yield from (("row 1", row) for row in (first.to_pylist() if first is not None else ()))
            return
        number = 0
        for batch in file.iter_batches(columns=columns, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read as Parquet: {error}. Write it again, or use JSONL.") from error


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
