"""docs/spec/alignmentrun.md, generated from the CRD: `--write FILE`, or `--check FILE` for drift."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from dynalign_operator.api.rules import CLUSTER_RULES, RULES, TRANSITIONS
from dynalign_operator.api.schema import FORM, FREE, Schema
from dynalign_operator.generate.crd import build_documented_schema
from dynalign_operator.generate.generator import run_generator
from dynalign_operator.generate.spec_prose import AFTER_SPEC, AFTER_STATUS, HEAD
from dynalign_operator.runfile.problems import describe_range

_AT_ONCE: Final = {
    "spec.suspend",
    *(f"spec.policy.{name}" for name in ("retries", "pendingTimeout", "stallTimeout", "deadline")),
}
"""Read anew at every look at the run; everything else is written into a Job when that is created."""
_SINGLE_RULE: Final = "self == oldSelf"


def render_reference() -> str:
    """The page: one table for each object of spec and status, rules below the table they belong to."""
    schema = build_documented_schema()
    spec, status = (list(_sections(schema["properties"][name], name, {})) for name in ("spec", "status"))
    return "\n".join([HEAD, *_contents(schema), "", *spec, AFTER_SPEC, *status, AFTER_STATUS])


def _contents(schema: Schema) -> Iterator[str]:
    """A line for spec, one for status, with what is directly below them."""
    for name in ("spec", "status"):
        children = schema["properties"][name]["properties"].items()
        objects = [f"{name}.{child}{_brackets(node)}" for child, node in children if _object_of(node)]
        links = ", ".join(f"[{path.rpartition('.')[2]}](#{_anchor(path)})" for path in objects)
        yield f"- [{name}](#{name}): {links}"


def _sections(node: Schema, path: str, seen: dict[str, str]) -> Iterator[str]:
    """The object at `path` and all below it. `seen` has the paths of the objects described so far, by their fields."""
    paragraph = _lines(node, "  \n")
    yield f"## {path}\n\n{paragraph}\n"
    is_spec = path.startswith("spec")
    yield f"| field | type | default |{' change |' if is_spec else ''} what |"
    yield f"|---|---|---|{'---|' if is_spec else ''}---|"
    required = node.get("required", [])
    for name, child in node["properties"].items():
        default = "**required**" if name in required and is_spec else _default(child)
        change = f" {_change(child, f'{path}.{name}')} |" if is_spec else ""
        yield f"| `{name}` | {_type(child, f'{path}.{name}')} | {default} |{change} {_cell(child)} |"
    yield ""
    refusals = [f"- {sentence}" for sentence in _refusals(path)]
    if refusals:
        yield "\n".join(["Refused, and in which words:", "", *refusals, ""])
    for name, child in node["properties"].items():
        item = _object_of(child)
        if item is None:
            continue
        here = f"{path}.{name}{_brackets(child)}"
        shape = json.dumps(item["properties"], sort_keys=True)
        if shape in seen:
            yield f"## {here}\n\nThe same fields as [{seen[shape]}](#{_anchor(seen[shape])}).\n"
            continue
        seen[shape] = here
        yield from _sections(item, here, seen)


def _refusals(path: str) -> Iterator[str]:
    """The sentences of all rules over the object at a path."""
    sayings = [(rule.at, f".{rule.field}" if rule.field else "", rule.message) for rule in (*RULES, *CLUSTER_RULES)]
    sayings += [(transition.at, "", transition.message) for transition in TRANSITIONS]
    for at, field, message in sayings:
        if re.fullmatch(re.escape(at).replace(r"\*", r"\w+"), path):
            yield f"`{path}{field}` {message}"


def _object_of(node: Schema) -> Schema | None:
    """The object with fields of its own that a field holds, or a list of such; None for all else."""
    item: Schema = node.get("items", node)
    return item if "properties" in item else None


def _brackets(node: Schema) -> str:
    return "[]" if "items" in node else ""


def _anchor(heading: str) -> str:
    return "".join(character for character in heading.lower() if character.isalnum())


def _type(node: Schema, path: str) -> str:
    """The type, with its limits."""
    if "properties" in node:
        return f"[object](#{_anchor(path)})"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    return str(node[FORM]) if FORM in node else _plain_type(node, path)


def _plain_type(node: Schema, path: str) -> str:
    match node["type"]:
        case "array":
            return f"list of {_size(node, 'Items')}{_type(node['items'], f'{path}[]')}"
        case "object" if node.get(FREE):
            return "any mapping"
        case "object":
            return f"map of {_size(node, 'Properties')}names to {_type(node['additionalProperties'], path)}"
        case "string":
            return str(node.get("format", "text")) + _length(node)
    return str(node["type"]) + describe_range(node)


def _size(node: Schema, what: str) -> str:
    """`1 to 64 `, `at most 16 `; empty where a list or map has no limits."""
    low, high = node.get(f"min{what}"), node.get(f"max{what}")
    if high is None:
        return ""
    return f"{low} to {high} " if low else f"at most {high} "


def _length(node: Schema) -> str:
    return f" of at most {node['maxLength']} characters" if "maxLength" in node else ""


def _default(node: Schema) -> str:
    default = node.get("default")
    if default is None or default in ({}, [], "") or "properties" in node:
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _change(node: Schema, path: str) -> str:
    """What becomes of a change of the field, once the run exists; empty for an object that may be changed in part."""
    for transition in TRANSITIONS:
        if path == transition.at or path.startswith(f"{transition.at}."):
            return "never" if transition.cel == _SINGLE_RULE else "up only"
    if "properties" in node:
        return ""
    return "at once" if path in _AT_ONCE else "next Job"


def _cell(node: Schema) -> str:
    return _lines(node, "<br>").replace("|", "\\|")


def _lines(node: Schema, end: str) -> str:
    """The description, with a line for each value of an enum."""
    lines = re.split(r"\n(?=`[^`]+`: )", str(node.get("description", "")))
    return end.join(line.replace("\n", " ") for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Reference of AlignmentRun", render_reference(), argv)


if __name__ == "__main__":
    sys.exit(main())
