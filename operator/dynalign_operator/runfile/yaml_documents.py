"""YAML as kubectl reads it, with what an error message needs: line and spelling of every field, and keys written twice.

Texts come from strangers, in a run file or a ConfigMap. Whatever is in them, `read_documents` ends soon, and with a
document of plain values or with MalformedYamlError.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from dynalign_operator.api.field_path import FieldPath

_INTEGER: Final = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_FLOAT: Final = re.compile(r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")
_BOOLEANS: Final = frozenset(yaml.SafeLoader.bool_values)
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_ANYTHING: Final = re.compile("")
_SCALARS: Final = {
    f"{_TAG}str": _ANYTHING,
    f"{_TAG}null": _ANYTHING,
    f"{_TAG}bool": re.compile(f"^({'|'.join(sorted(_BOOLEANS))})$", re.IGNORECASE),
    f"{_TAG}int": _INTEGER,
    f"{_TAG}float": re.compile(f"{_FLOAT.pattern}|{_INTEGER.pattern}"),
}
"""Tags of scalars -> texts that they may stand before."""
_ALLOWED_TAGS: Final = "only !!str, !!int, !!float, !!bool, !!null, !!seq and !!map are read; remove the tag"
_LONGEST_NUMBER: Final = 64
"""Characters; no field takes numbers that need more."""
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class YamlLimits:
    """What a text may cost to read."""

    kibibytes: int
    """Size limit of the text, and of all values once aliases are written out."""
    values: int = 100_000
    """Keys and values, aliases written out."""
    depth: int = 64
    """Lists and mappings inside each other."""
    aliases: bool = True
    """Whether `*alias` may stand for an `&anchor`."""


RUN_FILE_LIMITS: Final = YamlLimits(kibibytes=4096, values=300_000)
"""Room for what an API server has stored: up to 1.5 MiB of JSON, most of it status, and more as YAML."""
OBJECTIVE_LIMITS: Final = YamlLimits(kibibytes=64, values=10_000, aliases=False)
"""Objectives are read by the operator, for everybody's runs."""


class MalformedYamlError(Exception):
    """The text is not YAML that can be read; `line` is 1-based, None where none is to blame.

    The message is the rest of a sentence that begins with the field at `path`, or with the text as a whole.
    """

    def __init__(self, line: int | None, message: str, path: FieldPath = ()) -> None:
        super().__init__(message)
        self.line = line
        self.path = path


@dataclass(frozen=True)
class DuplicateKey:
    """A key that stands twice in one mapping."""

    path: FieldPath
    line: int
    first_line: int


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    data: Any
    lines: Mapping[FieldPath, int | None]
    """Where each field begins, 1-based; None for one that does not stand in the text (runfile/overrides.py)."""
    duplicates: tuple[DuplicateKey, ...] = ()
    written: Mapping[FieldPath, str] = field(default_factory=dict)
    """Spelling of every value that is no text: `no` for false, `1e5` for 100000.0, `~` for nothing."""

    def line_of(self, path: FieldPath) -> int | None:
        """Line of a field, or of the nearest field around it that is written down; None for a field that was set."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path)

    def items(self, path: FieldPath) -> "list[Document]":
        """The items of the list at `path` as documents of their own, with their lines."""
        found, size = self.data, len(path) + 1
        for step in path:
            found = found[step]
        lines: list[dict[FieldPath, int | None]] = [{} for _ in found]
        written: list[dict[FieldPath, str]] = [{} for _ in found]
        duplicates: list[list[DuplicateKey]] = [[] for _ in found]
        for place, line in self.lines.items():
            if place[: size - 1] == path and len(place) >= size:
                lines[int(place[size - 1])][place[size:]] = line
        for place, text in self.written.items():
            if place[: size - 1] == path and len(place) >= size:
                written[int(place[size - 1])][place[size:]] = text
        for twice in self.duplicates:
            if twice.path[: size - 1] == path and len(twice.path) >= size:
                own = DuplicateKey(twice.path[size:], twice.line, twice.first_line)
                duplicates[int(twice.path[size - 1])].append(own)
        return [
            Document(data, lines[index], tuple(duplicates[index]), written[index]) for index, data in enumerate(found)
        ]


class _Loader(yaml.SafeLoader):
    """Scalars resolve as in Kubernetes: no dates, no base 60, and 1e-5 is a number. Aliases and depth have limits."""

    def __init__(self, text: str, limits: YamlLimits) -> None:
        self._limits, self._depth = limits, 0
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Count the depth before Python's own stack does."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) and not self._limits.aliases:
            raise MalformedYamlError(line, f"holds the alias *{event.anchor}; write its values out")
        if self._depth >= self._limits.depth:
            raise MalformedYamlError(line, f"nests deeper than {self._limits.depth} levels; write it flatter")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


def read_documents(text: str, limits: YamlLimits = RUN_FILE_LIMITS) -> list[Document]:
    """Every document that is not empty. Raises MalformedYamlError."""
    _check_size(text, limits)
    documents = []
    loader = None
    try:
        loader = _Loader(text, limits)
        while loader.check_node() and (node := loader.get_node()) is not None:
            survey = _Survey(limits)
            survey.visit(node, (), ())
            data = loader.construct_document(node)
            if data is not None:
                documents.append(Document(data, survey.lines, tuple(survey.duplicates), survey.written))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise MalformedYamlError(mark.line + 1 if mark else None, _plain(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise MalformedYamlError(
            line, f"holds the character U+{_code_point(error):04X}, which YAML does not allow; remove it"
        ) from error
    except (OverflowError, ValueError) as error:
        # chr() of what stands behind \U in a quoted text
        line = loader.line + 1 if loader is not None else 1
        raise MalformedYamlError(line, "holds an escape that is no character; write the character itself") from error
    finally:
        if loader is not None:
            loader.dispose()
    return documents


def _check_size(text: str, limits: YamlLimits) -> None:
    most = limits.kibibytes * 1024
    if len(text) > most or len(text.encode("utf-8", "replace")) > most:
        line = text.count("\n", 0, most) + 1
        raise MalformedYamlError(line, f"is larger than {limits.kibibytes} KiB; shorten it")


def _code_point(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character)


def _plain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it ends in the middle"
    if "\\t" in problem:
        return "is indented with a tab; YAML takes spaces only"
    return f"is not YAML ({problem}); check the indentation, and quote texts that hold a colon or start with a symbol"


class _Survey:
    """Walks a document's nodes before they become values: records where everything stands, and refuses what is odd."""

    def __init__(self, limits: YamlLimits) -> None:
        self._limits = limits
        self._visited = self._characters = 0
        self.lines: dict[FieldPath, int] = {}
        self.duplicates: list[DuplicateKey] = []
        self.written: dict[FieldPath, str] = {}

    def visit(self, node: yaml.Node, path: FieldPath, above: tuple[int, ...]) -> None:
        """One node and all below it. `above` are the nodes around it: an alias may name one of them."""
        line = self._enter(node, above)
        self.lines.setdefault(path, line)
        above = (*above, id(node))
        if isinstance(node, yaml.ScalarNode):
            self._visit_scalar(node, path, line)
        elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index), above)
        elif isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            self._visit_mapping(node, path, above)
        else:
            raise _wrong_tag(node, path, line)

    def _visit_mapping(
        self, node: yaml.MappingNode, path: FieldPath, above: tuple[int, ...], *, merged: bool = False
    ) -> None:
        """Keys of the mapping, then those that `<<` merges into it. `merged` keys give way to those that are there."""
        seen: dict[Hashable, int] = {}
        merges: list[yaml.Node] = []
        for index, (key_node, value_node) in enumerate(node.value):
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise MalformedYamlError(line, "has a list or a mapping for a key; write a plain word", path)
            self._count(key_node, line)
            if key_node.tag == _MERGE:
                merges.append(value_node)
                continue
            _check_scalar(key_node, path, line)
            key = _key(key_node)
            node.value[index] = (yaml.ScalarNode(f"{_TAG}str", key, key_node.start_mark, key_node.end_mark), value_node)
            here = (*path, key)
            if merged and here in self.lines:
                here = (*path, "<<", key)
            elif key in seen:
                self.duplicates.append(DuplicateKey(here, line, seen[key]))
            seen.setdefault(key, line)
            self.lines[here] = line
            self.visit(value_node, here, above)
        for value_node in merges:
            self._visit_merge(value_node, path, above)

    def _visit_merge(self, node: yaml.Node, path: FieldPath, above: tuple[int, ...]) -> None:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode) and source.tag == f"{_TAG}map":
                self._enter(source, above)
                self._visit_mapping(source, path, (*above, id(source)), merged=True)
            else:
                self.visit(source, (*path, "<<"), above)

    def _enter(self, node: yaml.Node, above: tuple[int, ...]) -> int:
        line = node.start_mark.line + 1
        if id(node) in above:
            raise MalformedYamlError(line, "holds an anchor that contains itself; write the values out")
        self._count(node, line)
        return line

    def _visit_scalar(self, node: yaml.ScalarNode, path: FieldPath, line: int) -> None:
        _check_scalar(node, path, line)
        if node.tag != f"{_TAG}str":
            self.written[path] = node.value

    def _count(self, node: yaml.Node, line: int) -> None:
        self._visited += 1
        self._characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self._visited > self._limits.values:
            raise MalformedYamlError(line, f"has more than {self._limits.values} values, aliases written out")
        if self._characters > self._limits.kibibytes * 1024:
            raise MalformedYamlError(line, f"is larger than {self._limits.kibibytes} KiB, aliases written out")


def _check_scalar(node: yaml.ScalarNode, path: FieldPath, line: int) -> None:
    """Refuse what is no value of JSON; halves of one character, as JSON escapes them, are put together."""
    if node.tag not in _SCALARS or not _SCALARS[node.tag].search(node.value):
        raise _wrong_tag(node, path, line)
    if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > _LONGEST_NUMBER:
        raise MalformedYamlError(
            line, f"is a number of {len(node.value)} characters; write a smaller one, or a text in quotes", path
        )
    node.value = _SURROGATE_PAIR.sub(_join, node.value)
    if half := _SURROGATE.search(node.value):
        raise MalformedYamlError(
            line, f"holds half a character (\\u{ord(half[0]):04x}); write the whole character", path
        )
    if control := _FORBIDDEN.search(node.value):
        raise MalformedYamlError(line, f"holds the control character U+{ord(control[0]):04X}; remove it", path)


def _key(node: yaml.ScalarNode) -> str:
    """A key as JSON has it: a text, whatever it would be as a value."""
    text = str(node.value)
    return str(yaml.SafeLoader.bool_values[text.lower()]).lower() if node.tag == f"{_TAG}bool" else text


def _join(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _wrong_tag(node: yaml.Node, path: FieldPath, line: int) -> MalformedYamlError:
    known = node.tag in (*_SCALARS, f"{_TAG}seq", f"{_TAG}map")
    why = ", which does not fit its value; remove the tag" if known else f"; {_ALLOWED_TAGS}"
    short = node.tag.replace(_TAG, "!!")
    return MalformedYamlError(line, f"has the tag {short if len(short) <= 40 else short[:37] + '...'}{why}", path)
