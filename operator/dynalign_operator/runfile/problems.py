"""What is wrong with a run file, in sentences: which field, what it is, and what to write instead."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import ErrorDetails

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.plain_text import plain_line
from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.api.schema import FORM, KEYS, Schema

_OF_A_KEY: Final = "[key]"
"""Last part of the place of an error that pydantic finds in a map's key."""
LONGEST_QUOTE: Final = 60
"""Characters of a value that a sentence repeats."""
_LONGEST_KEY: Final = 317
"""Characters of a key that a field's name repeats: as many as a label's key can have."""
_UNITS: Final = {
    "maxLength": "tokens",
    "maxTokens": "tokens",
    "rationaleTokens": "tokens",
    "memoryGib": "GiB",
    "minCharacters": "characters",
    "shingleWords": "words",
    "checkpointSteps": "optimiser steps",
    "tolerationSeconds": "seconds",
}


@dataclass(frozen=True)
class Problem:
    """One error of a run file, with its place."""

    text: str
    """A sentence that begins with the field; loses what has no place on a terminal or in a status."""
    line: int | None = None
    """Line of the file, from 1."""
    exit_code: ExitCode = ExitCode.BAD_CONFIG
    bare: str = ""
    """The sentence without anything that stands in the file, for those who may not be allowed to read it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", plain_line(self.text))


def name_field(path: FieldPath) -> str:
    """`spec.aspects[0].id` for ("spec", "aspects", 0, "id"); keys with dots or slashes are quoted."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            name += f".{_shorten(part, _LONGEST_KEY)}" if name else _shorten(part, _LONGEST_KEY)
        else:
            name += f"[{json.dumps(_shorten(part, _LONGEST_KEY), ensure_ascii=False)}]"
    return name


def locate_error(error: ErrorDetails) -> FieldPath:
    """The field that an error of pydantic's is about: for a map's key it is the map."""
    path = error["loc"]
    return path[:-2] if path and path[-1] == _OF_A_KEY else path


def describe_error(error: ErrorDetails, schema: Schema, written: Mapping[FieldPath, str] = MappingProxyType({})) -> str:
    """The sentence after the name of the field `locate_error(error)`, for one error of pydantic's.

    `schema` is the structural schema of the whole document, `written` how values that are no texts stand in it.
    """
    path = locate_error(error)
    node = find_node(schema, path)
    if path != error["loc"]:
        return f"has the key {quote_value(error['input'])}; write {node.get(KEYS, {}).get(FORM, 'a text')}"
    match error["type"]:
        case "extra_forbidden":
            return _describe_unknown(path, schema)
        case "missing":
            return f"is missing; write {describe_value(node, path)}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "too_short" | "too_long" | "string_too_short" | "string_too_long":
            return _describe_length(error)
    return _describe_wrong(error["input"], node, path, written.get(path))


def describe_without_values(error: ErrorDetails, schema: Schema) -> str:
    """Field and sentence of an error, with nothing of the file's own in it: no values, and no names but ours."""
    path = _known_part(locate_error(error), schema)
    node, field = find_node(schema, path), name_field(path)
    match error["type"]:
        case "extra_forbidden":
            options = list(node.get("properties", {}))
            close = difflib.get_close_matches(_to_camel(str(error["loc"][-1])), options, n=1, cutoff=0.75)
            sentence = "has an unknown field; " + (f"did you mean {close[0]}?" if close else _allowed(options))
        case "missing":
            sentence = f"is missing; write {describe_value(node, path)}"
        case "value_error":
            sentence = getattr(error["ctx"]["error"], "bare", "") or "cannot be used as it is"
        case "too_short" | "too_long" | "string_too_short" | "string_too_long":
            sentence = _describe_length(error)
        case _:
            sentence = f"cannot be used as it is; write {describe_value(node, path)}"
    return f"{field} {sentence}".strip()


def is_known(path: FieldPath, schema: Schema) -> bool:
    """Whether the whole path is the schema's own, so that its name says where to look."""
    return _known_part(path, schema) == path


def _known_part(path: FieldPath, schema: Schema) -> FieldPath:
    """The beginning of a path that the schema names; keys of free maps are the file's own."""
    known: list[str | int] = []
    for part in path:
        if isinstance(part, str) and part not in find_node(schema, tuple(known)).get("properties", {}):
            break
        known.append(part)
    return tuple(known)


def _describe_length(error: ErrorDetails) -> str:
    size, limits = len(error["input"]), error["ctx"]
    match error["type"]:
        case "too_short":
            return f"has too few entries ({size}); give at least {limits['min_length']}"
        case "too_long":
            return f"has too many entries ({size}); give at most {limits['max_length']}"
        case "string_too_short":
            return "is empty; write something, or remove the field"
    return f"is too long; write at most {limits['max_length']} characters"


def _describe_wrong(value: Any, node: Schema, path: FieldPath, written: str | None) -> str:
    if value is None:
        what = "is empty" if not written else f"is {written}, which YAML reads as nothing"
        return f"{what}; write {describe_value(node, path)}, or remove the field"
    if written is not None and node.get("type") == "string":
        return _describe_unquoted(value, node, path, written)
    close = ""
    if isinstance(value, str) and len(node.get("enum", ())) > 1:
        close = _did_you_mean(value, [str(option) for option in node["enum"]])
    what = quote_value(value) if written is None or isinstance(value, str) else _shorten(written)
    return f"is {what}; write {describe_value(node, path)}{close}"


def _describe_unquoted(value: Any, node: Schema, path: FieldPath, written: str) -> str:
    """A text without quotes that YAML takes for something else, as `no` in a list of languages."""
    kind = quote_value(value) if isinstance(value, bool) else "a number"
    same = isinstance(value, bool) and written == kind
    what = f"is {_shorten(written)}" + (" without quotes" if same else f", which YAML reads as {kind}")
    if _fits(written, node):
        return f'{what}; write "{written}", in quotes'
    return f"{what}; write {describe_value(node, path)}"


def _fits(text: str, node: Schema) -> bool:
    """Whether a text is what the field takes."""
    return (
        len(text) <= node.get("maxLength", LONGEST_QUOTE)
        and text in node.get("enum", [text])
        and re.search(node.get("pattern", ""), text) is not None
    )


def describe_value(node: Schema, path: FieldPath) -> str:
    """What may be written: `a whole number from 1 to 1000 tokens`, `one of A, B, C`, a form in words."""
    if FORM in node:
        return str(node[FORM])
    if "enum" in node:
        options = [str(option) for option in node["enum"]]
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    fields = node.get("required") or list(node.get("properties", {}))
    mapping = f"a mapping with {', '.join(fields)}" if fields else "a mapping of names to values"
    words = {
        "integer": f"a whole number{describe_range(node)}{_unit(path)}",
        "number": f"a number{describe_range(node)}{_unit(path)}",
        "boolean": "true or false",
        "string": f"a text that matches {node['pattern']}" if "pattern" in node else "a text",
        "array": "a list, for example [a, b]",
    }
    return words.get(node.get("type", ""), mapping)


def find_node(schema: Schema, path: FieldPath) -> Schema:
    """The schema of the field at `path`; an empty one where there is none."""
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}
    return schema


def describe_range(node: Schema) -> str:
    """` from 1 to 1000`, ` above 0 and at most 1`; empty where there are no limits."""
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum", False), node.get("exclusiveMaximum", False)
    if low is not None and high is not None and not above and not below:
        return f" from {_number(low)} to {_number(high)}"
    bounds = []
    if low is not None:
        bounds.append(f"above {_number(low)}" if above else f"of at least {_number(low)}")
    if high is not None:
        bounds.append(f"below {_number(high)}" if below else f"at most {_number(high)}")
    return " " + " and ".join(bounds) if bounds else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _unit(path: FieldPath) -> str:
    unit = _UNITS.get(str(path[-1])) if path else None
    return f" {unit}" if unit else ""


def quote_value(value: Any) -> str:
    """How the value reads in the file, short enough for a sentence."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return json.dumps(_shorten(value) if isinstance(value, str) else value, ensure_ascii=False)


def _shorten(text: str, longest: int = LONGEST_QUOTE) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _describe_unknown(path: FieldPath, schema: Schema) -> str:
    name = str(path[-1])
    siblings = list(find_node(schema, path[:-1]).get("properties", {}))
    camel = _to_camel(name)
    exact = [sibling for sibling in siblings if sibling.lower() == camel.lower()]
    if exact:
        return f"is unknown; write {exact[0]}"
    elsewhere = [name_field(other) for other in _fields(schema, ()) if str(other[-1]).lower() == camel.lower()]
    elsewhere = [other for other in elsewhere if not other.startswith(("metadata", "status"))]
    close = difflib.get_close_matches(camel, siblings, n=1, cutoff=0.75)
    if close:
        return f"is unknown; did you mean {close[0]}?"
    if elsewhere:
        return f"is unknown here; this field belongs under {_either(elsewhere)}"
    near = difflib.get_close_matches(camel, siblings, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"is unknown{hint or '; ' + _allowed(siblings)}"


def _to_camel(name: str) -> str:
    return re.sub(r"[_-]+(\w)", lambda match: match[1].upper(), name)


def _allowed(names: Sequence[str]) -> str:
    """The names that may stand there; none are known of a part that has the fields of Kubernetes' own objects."""
    return f"allowed are {', '.join(names)}" if names else "correct its name, or remove it"


def _either(fields: Sequence[str]) -> str:
    places = [field.rpartition(".")[0] for field in fields]
    if len(places) > 3:
        return f"{', '.join(places[:2])} or another stage" if all("stages" in p for p in places) else places[0]
    return " or ".join(places)


def _fields(schema: Schema, path: FieldPath) -> Iterator[FieldPath]:
    for name, child in schema.get("properties", {}).items():
        yield (*path, name)
        yield from _fields(child, (*path, name))


def _did_you_mean(value: str, options: Sequence[str]) -> str:
    by_lower = {option.lower(): option for option in options}
    folded = re.sub(r"[^a-z0-9]", "", value.lower())
    if folded in by_lower:
        return f" (did you mean {by_lower[folded]}?)"
    close = difflib.get_close_matches(folded, list(by_lower), n=1, cutoff=0.6)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""
