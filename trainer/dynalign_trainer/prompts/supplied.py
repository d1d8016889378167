"""Prompts of the user's own, from a JSONL or Parquet file with a column `prompt` (text) or `messages` (chat)."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError, model_validator

from dynalign_contract.errors import BadInputError
from dynalign_trainer.engine import Message

CLAIMS: Final = Path("/claims")
"""Where a pod finds the claims that its run file names, one folder each."""

_SHAPE: Final = 'Each row needs "prompt" (text) or "messages" (a list of {"role", "content"} that ends with the user).'


class _Turn(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, strict=True)]


class _Row(BaseModel):
    """A row; other columns are ignored."""

    prompt: Annotated[str, Field(min_length=1, strict=True)] | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Row":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError('exactly one of "prompt" and "messages" is needed')
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return self

    def chat(self) -> tuple[Message, ...]:
        if self.messages is None:
            return (Message(role="user", content=self.prompt or ""),)
        return tuple(Message(role=turn.role, content=turn.content) for turn in self.messages)


def supplied_path(uri: str) -> Path:
    """The file of a `prompts.supplied.uri`: a path as it is, `pvc://claim/path` below the mounted claims."""
    parts = urlsplit(uri)
    return CLAIMS / parts.netloc / parts.path.lstrip("/") if parts.scheme == "pvc" else Path(uri)


def read_supplied(path: Path, field: str) -> list[tuple[Message, ...]]:
    """All prompts of the file, in order; `field` names it in the run file, without its `uri`.

    Raises BadInputError naming the file and the line or row.
    """
    if not path.is_file():
        raise BadInputError(f"{field}.uri: there is no file {path}. Name a .jsonl or .parquet file. {_SHAPE}")
    if path.suffix not in (".jsonl", ".parquet"):
        raise BadInputError(f"{field}.uri: {path} is neither .jsonl nor .parquet. {_SHAPE}")
    chats = [_parse(where, data) for where, data in (_lines(path) if path.suffix == ".jsonl" else _rows(path))]
    if not chats:
        raise BadInputError(f"{path} holds no prompts. Add some, or remove {field} from the run file. {_SHAPE}")
    return chats


def take_slice(
    chats: Sequence[tuple[Message, ...]], count: int, turn: int, rng: random.Random
) -> list[tuple[Message, ...]]:
    """`count` prompts for the iteration number `turn`; fewer when there are not so many.

    The prompts, shuffled once, are dealt out and begin anew at their end; `rng` must be in the same state every time.
    """
    count = min(count, len(chats))
    order = rng.sample(range(len(chats)), len(chats))
    return [chats[order[(turn * count + i) % len(chats)]] for i in range(count)]


def _parse(where: str, data: Any) -> tuple[Message, ...]:
    try:
        return _Row.model_validate(data).chat()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"{where}: {field + ': ' if field else ''}{first['msg']}. {_SHAPE}") from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read as UTF-8 text: {error}. Save it as UTF-8.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except ValueError as error:
            raise BadInputError(
                f"{path}, line {number} is not JSON ({error}). Write one JSON object a line."
            ) from error


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path} cannot be read as Parquet: {error}. Write it again, or use JSONL.") from error
    wanted = [name for name in ("prompt", "messages") if name in table.column_names]
    if not wanted:
        raise BadInputError(f"{path} has the columns {', '.join(table.column_names)}. {_SHAPE}")
    for number, row in enumerate(table.select(wanted).to_pylist(), start=1):
        yield f"{path}, row {number}", row
