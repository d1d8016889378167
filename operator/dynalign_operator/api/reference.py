"""docs/reference/alignmentrun.md, generated from the CRD: `--write FILE`, or `--check FILE` for drift."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from dynalign_operator.api.crd import build_schema, run_generator
from dynalign_operator.api.problems import describe_range
from dynalign_operator.api.schema import Schema
from dynalign_operator.api.v1alpha1 import API_VERSION, KIND

_HEAD: Final = f"""\
<!-- Generated from operator/dynalign_operator/api by `make generate`; change the models instead. -->
# {KIND}

Every field of `{API_VERSION}`, kind `{KIND}`; `kubectl explain alignmentrun.spec` tells the same. Fields without a
default are optional unless they are marked as required. `crds/samples/full.yaml` shows all of them in one file.
"""


def render_reference() -> str:
    """The page: one table for each object of spec and status, rules below the table they belong to."""
    schema = build_schema()
    parts = [_HEAD]
    for name in ("spec", "status"):
        parts.extend(_sections(schema["properties"][name], name))
    return "\n".join(parts)


def _sections(node: Schema, path: str) -> Iterator[str]:
    yield f"## {path}\n\n{_paragraph(node)}\n"
    yield "| field | type | default | what |\n|---|---|---|---|"
    required = node.get("required", [])
    for name, child in node["properties"].items():
        default = "**required**" if name in required else _default(child)
        yield f"| `{name}` | {_type(child)} | {default} | {_cell(child)} |"
    yield ""
    rules = [f"- {rule['message']}" for rule in node.get("x-kubernetes-validations", [])]
    if rules:
        yield "\n".join(["What is refused, and in which words:", "", *rules, ""])
    seen: dict[str, str] = {}
    for name, child in node["properties"].items():
        item = child.get("items", child)
        if "properties" not in item:
            continue
        here = f"{path}.{name}[]" if "items" in child else f"{path}.{name}"
        shape = json.dumps(item["properties"], sort_keys=True)
        if shape in seen:
            yield f"## {here}\n\nThe same fields as [{seen[shape]}](#{_anchor(seen[shape])}).\n"
            continue
        seen[shape] = here
        yield from _sections(item, here)


def _anchor(heading: str) -> str:
    return "".join(character for character in heading.lower() if character.isalnum())


def _paragraph(node: Schema) -> str:
    return str(node.get("description", "")).replace("\n", "  \n")


def _type(node: Schema) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    match node["type"]:
        case "array":
            return f"list of {_type(node['items'])}"
        case "object" if "additionalProperties" in node:
            return f"map to {_type(node['additionalProperties'])}"
    return str(node.get("format", node["type"])) + describe_range(node)


def _default(node: Schema) -> str:
    default = node.get("default")
    if default is None or default in ({}, []) or "properties" in node:
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _cell(node: Schema) -> str:
    return str(node.get("description", "")).replace("\n", "<br>").replace("|", "\\|")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Reference of AlignmentRun", render_reference(), argv)


if __name__ == "__main__":
    sys.exit(main())
