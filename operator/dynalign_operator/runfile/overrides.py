"""Fields that the command line sets in place of the file's: `FIELD=VALUE`, with the value in YAML as in the file."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.runfile.problems import name_field, quote_value
from dynalign_operator.runfile.yaml_documents import Document, MalformedYamlError, read_documents

_PART: Final = re.compile(r"""\.?(?P<name>[\w-]+)|\[(?P<index>\d{1,6})\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]""")
_TOP: Final = ("spec", "metadata")
_REMOVE: Final = object()


class OverrideError(Exception):
    """A field cannot be set; the message is a sentence without a full stop."""


@dataclass(frozen=True)
class Override:
    """A field, and what stands in it instead."""

    path: FieldPath
    value: Document | None
    """None: the field is removed."""


def parse_override(text: str) -> Override:
    """The override that `spec.model.uri=./model` names. Raises OverrideError."""
    path, end = _parse_path(text)
    shown = name_field(path)
    if not path or text[end : end + 1] != "=":
        raise OverrideError(
            f"--set {_short(text)} is not FIELD=VALUE; write it as in --set spec.iterations=2, with the name of the "
            'field as messages have it: spec.judging.judges[0].weight, spec.nodeSelector["a.b/c"]'
        )
    if path[0] not in _TOP or len(path) == 1:
        raise OverrideError(f"--set {shown} names no field that can be set; name one under {' or '.join(_TOP)}")
    if not text[end + 1 :].strip():
        raise OverrideError(f"--set {shown} has no value; write {shown}=null to remove the field")
    try:
        documents = read_documents(text[end + 1 :])
    except MalformedYamlError as error:
        where = name_field(error.path)
        raise OverrideError(f"--set {shown}: the value{f', {where},' if where else ''} {error}") from error
    if len(documents) > 1:
        raise OverrideError(f"--set {shown}: the value is {len(documents)} YAML documents; write one")
    value = documents[0] if documents else None
    if value is not None and value.duplicates:
        twice = name_field((*path, *value.duplicates[0].path))
        raise OverrideError(f"--set {shown}: {twice} is written twice; keep one of them")
    return Override(path, value)


def apply_overrides(document: Document, overrides: Iterable[Override]) -> Document:
    """A document with fields set, in order; a later one wins. Set fields have no line. Raises OverrideError."""
    for override in overrides:
        document = _apply(document, override)
    return document


def _apply(document: Document, override: Override) -> Document:
    path, value = override.path, override.value
    data = _put(document.data, path, 0, _REMOVE if value is None else value.data)
    size = len(path)
    lines = {place: line for place, line in document.lines.items() if place[:size] != path}
    written = {place: text for place, text in document.written.items() if place[:size] != path}
    lines[path] = None
    if value is not None:
        written |= {(*path, *place): text for place, text in value.written.items()}
    return Document(data, lines, document.duplicates, written)


def _put(data: Any, path: FieldPath, depth: int, value: Any) -> Any:
    """Copy of `data`, which stands at path[:depth], with the value at `path`; mappings that are missing are made."""
    if depth == len(path):
        return value
    part = path[depth]
    if isinstance(part, int):
        return _put_item(data, path, depth, value)
    if data is not None and not isinstance(data, dict):
        _refuse(path, depth, f"{quote_value(data)}, which has no field {part}")
    old = data or {}
    new = _put(old.get(part), path, depth + 1, value)
    if new is _REMOVE:
        return {key: other for key, other in old.items() if key != part}
    return {**old, part: new}


def _put_item(data: Any, path: FieldPath, depth: int, value: Any) -> list[Any]:
    """Copy of a list with the value in it: in place of an item, or behind the last one."""
    items, index = data if isinstance(data, list) else [], int(path[depth])
    if data is not None and not isinstance(data, list):
        _refuse(path, depth, f"{quote_value(data)}, which has no items")
    if index > len(items):
        entries = "1 item" if len(items) == 1 else f"{len(items)} items"
        _refuse(path, depth, f"a list of {entries}; the next one is [{len(items)}]")
    new = _put(items[index] if index < len(items) else None, path, depth + 1, value)
    if new is _REMOVE:
        _refuse(path, depth, "a list, whose items are not removed one by one; set the whole list")
    return [*items[:index], new, *items[index + 1 :]]


def _refuse(path: FieldPath, depth: int, what: str) -> None:
    raise OverrideError(f"--set {name_field(path)}: {name_field(path[:depth])} is {what}")


def _parse_path(text: str) -> tuple[FieldPath, int]:
    """The field that a text begins with, and where its name ends."""
    path: list[str | int] = []
    end = 0
    while (part := _PART.match(text, end)) is not None and bool(path) == (part[0][0] in ".["):
        name, index, key = part["name"], part["index"], part["key"]
        path.append(name if name is not None else int(index) if index is not None else str(json.loads(key)))
        end = part.end()
    return tuple(path), end


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else f"{text[:57]}...", ensure_ascii=False)
