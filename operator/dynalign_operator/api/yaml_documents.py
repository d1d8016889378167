"""YAML as kubectl reads it, with what an error message needs: the line of every field, and keys written twice."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]
"""Keys and list indexes from a document's root."""

_INTEGER: Final = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_FLOAT: Final = re.compile(r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")
_MOST_VALUES: Final = 100_000


class MalformedYamlError(Exception):
    """The text is not YAML that can be read; `line` is 1-based, None where none is to blame."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class DuplicateKey:
    """A key that stands twice in one mapping."""

    path: Path
    line: int
    first_line: int


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    data: Any
    lines: dict[Path, int]
    """Where each field begins, 1-based."""
    duplicates: tuple[DuplicateKey, ...]

    def line_of(self, path: Path) -> int | None:
        """Line of a field, or of the nearest field around it that is written down."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path)


class _Loader(yaml.SafeLoader):
    """Scalars resolve as in Kubernetes: no dates, no base 60, and 1e-5 is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_documents(text: str) -> list[Document]:
    """Every document that is not empty. Raises MalformedYamlError."""
    documents = []
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()) is not None:
            lines: dict[Path, int] = {}
            duplicates: list[DuplicateKey] = []
            _survey(node, (), (), lines, duplicates)
            data = loader.construct_document(node)
            if data is not None:
                documents.append(Document(data=data, lines=lines, duplicates=tuple(duplicates)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise MalformedYamlError(mark.line + 1 if mark else None, _plain(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise MalformedYamlError(None, f"holds characters that YAML does not allow ({error})") from error
    finally:
        if loader is not None:
            loader.dispose()
    return documents


def _plain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it ends in the middle"
    if "\\t" in problem:
        return "is indented with a tab; YAML takes spaces only"
    return f"is not YAML ({problem}); check the indentation, and quote texts that hold a colon or start with a symbol"


def _survey(
    node: yaml.Node, path: Path, above: tuple[int, ...], lines: dict[Path, int], duplicates: list[DuplicateKey]
) -> None:
    """Record where everything stands. `above` are the nodes around this one: an alias may name one of them."""
    if id(node) in above:
        raise MalformedYamlError(node.start_mark.line + 1, "holds an anchor that contains itself; write the values out")
    if len(lines) > _MOST_VALUES:
        raise MalformedYamlError(node.start_mark.line + 1, f"has more than {_MOST_VALUES} values, aliases written out")
    lines.setdefault(path, node.start_mark.line + 1)
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _survey(item, (*path, index), above, lines, duplicates)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise MalformedYamlError(line, "has a list or a mapping for a key; write a plain word")
            key = str(key_node.value)
            here = (*path, key)
            if key in seen:
                duplicates.append(DuplicateKey(here, line, seen[key]))
            seen.setdefault(key, line)
            lines[here] = line
            _survey(value_node, here, above, lines, duplicates)
