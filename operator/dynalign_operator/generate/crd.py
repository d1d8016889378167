"""The CustomResourceDefinition of AlignmentRun, generated from the models. `--check FILE` finds drift."""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import yaml

from dynalign_operator.api.rules import CLUSTER_RULES, RULES, TRANSITIONS
from dynalign_operator.api.schema import FORM, KEYS, Schema, structural_schema, without_forms
from dynalign_operator.api.v1alpha1 import GROUP, KIND, PLURAL, VERSION, AlignmentRun, ObjectMeta
from dynalign_operator.generate.generator import run_generator
from dynalign_operator.runfile.problems import LONGEST_QUOTE

_WIDTH: Final = 110
_OBJECT_NAME: Final = {"type": "string", "maxLength": 253}
_WIDE: Final = 1
"""Priority of columns that `kubectl get -o wide` alone shows."""
_COLUMNS: Final = (
    ("Phase", "string", ".status.phase", "The run in one word."),
    ("Iteration", "integer", ".status.iteration", "The current iteration, from 0."),
    ("Stage", "string", ".status.stage", "The current stage."),
    ("Progress", "string", ".status.progress", "How far the run and its stage are."),
    ("Reward", "number", ".status.reward", "Mean reward of the latest judged iteration."),
    ("WinRate", "number", ".status.winRate.value", "Held-out win rate of the latest evaluated iteration."),
    (
        "CapabilityDelta",
        "number",
        ".status.capabilityDelta.value",
        "Score of the latest examined iteration minus the base model's.",
        _WIDE,
    ),
    ("Goodput", "number", ".status.goodput.share", "Useful share of the devices' time, 0 to 1.", _WIDE),
    ("Age", "date", ".metadata.creationTimestamp", ""),
)


def build_crd() -> dict[str, Any]:
    """The manifest: structural schema, defaults, limits, CEL rules, printer columns, status subresource."""
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["ar"],
        "categories": ["dynalign"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": build_schema()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def build_schema() -> Schema:
    """The structural schema of a whole AlignmentRun, rules included."""
    schema: Schema = without_forms(build_documented_schema())
    return schema


def build_documented_schema() -> Schema:
    """Build the structural schema with the keyword `x-form`, a description of the texts that a pattern allows."""
    schema = structural_schema(AlignmentRun)
    _say_forms(schema)
    schema["properties"] |= {
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        # The API server itself knows metadata. Its own limit stands here for those who estimate what a rule costs.
        "metadata": {"type": "object", "properties": dict.fromkeys(("name", "generateName"), _OBJECT_NAME)},
    }
    del schema["properties"]["status"]["default"]
    schema["required"] = ["spec"]
    _add_name_rules(schema)
    for rule in (*RULES, *CLUSTER_RULES):
        for node in _nodes(schema, rule.at):
            _add_rule(node, rule.cel, f"{rule.field} {rule.message}".strip())
    for transition in TRANSITIONS:
        for node in _nodes(schema, transition.at):
            _add_rule(node, transition.cel, transition.message)
    return schema


def _say_forms(node: Schema) -> None:
    """Patterns become rules: these answer in the words of `dynalign validate`, a pattern only with itself.

    A rule over a quantity sees whole numbers too, which a pattern does not.
    """
    if FORM in node:
        pattern, this = node.pop("pattern"), "self" if node.get("type") == "string" else "string(self)"
        described = _describe_form(this, node[FORM])
        _add_rule(node, f"{this}.matches(r'{pattern}')", f"must be {node[FORM]}", described)
    if KEYS in node:
        _add_key_rule(node, node[KEYS])
    for child in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
        if child is not None:
            _say_forms(child)


def _add_key_rule(node: Schema, keys: Schema) -> None:
    """A structural schema says nothing of a map's keys: a rule of the map does."""
    is_right = f"size(k) <= {keys['maxLength']} && k.matches(r'{keys['pattern']}')"
    wrong = f"self.filter(k, !({is_right}))[0]"
    described = f"'has the key ' + {_quote_in_cel(wrong)} + '; write {_escape(keys[FORM])}'"
    _add_rule(node, f"self.all(k, {is_right})", f"has a key that cannot be used; write {keys[FORM]}", described)


def _add_name_rules(schema: Schema) -> None:
    """A name that Kubernetes takes may still be none that fits into a label or a Job's name."""
    name = structural_schema(ObjectMeta)["properties"]["name"]
    this, longest = "self.metadata.name", name["maxLength"]
    _add_rule(schema, f"size({this}) <= {longest}", f"metadata.name is too long; write at most {longest} characters")
    described = f"'metadata.name ' + {_describe_form(this, name[FORM])}"
    rule = f"size({this}) > {longest} || {this}.matches(r'{name['pattern']}')"
    _add_rule(schema, rule, f"metadata.name must be {name[FORM]}", described)


def _describe_form(this: str, form: str) -> str:
    """CEL for `is "3 days"; write a time span such as ...`, as `problems.describe_error` puts it."""
    return f"'is ' + {_quote_in_cel(this)} + '; write {_escape(form)}'"


def _quote_in_cel(this: str) -> str:
    short = f"size({this}) > {LONGEST_QUOTE} ? {this}.substring(0, {LONGEST_QUOTE - 3}) + '...' : {this}"
    return f"strings.quote({short})"


def _escape(text: str) -> str:
    """A text as it stands in a CEL literal, between single quotes."""
    return text.replace("\\", r"\\").replace("'", r"\'")


@cache
def render_crd() -> str:
    """The CRD as YAML, the text of crds/dynalign.io_alignmentruns.yaml."""
    head = "# Generated from operator/dynalign_operator/api by `make generate`; change the models instead.\n"
    return head + yaml.dump(build_crd(), Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes every list and map out: anchors are legal YAML but no reading matter."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _column(name: str, kind: str, path: str, description: str, priority: int = 0) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path}
    told = {"description": description} if description else {}
    return column | told | ({"priority": priority} if priority else {})


def _add_rule(node: Schema, cel: str, message: str, message_expression: str | None = None) -> None:
    """`message_expression` is CEL for a message that quotes the value; `message` stands in where it cannot be had."""
    expression = {} if message_expression is None else {"messageExpression": message_expression}
    node.setdefault("x-kubernetes-validations", []).append({"rule": cel, "message": message, **expression})


def _nodes(schema: Schema, path: str) -> Iterator[Schema]:
    """Every node of the schema that a rule's path names."""
    if not path:
        yield schema
        return
    head, _, rest = path.partition(".")
    name = head.removesuffix("[]")
    properties = schema["properties"]
    for child in properties.values() if name == "*" else (properties[name],):
        yield from _nodes(child["items"] if head.endswith("[]") else child, rest)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file, or compare it and print a diff; returns the exit code."""
    return run_generator("CustomResourceDefinition of AlignmentRun", render_crd(), argv)


if __name__ == "__main__":
    sys.exit(main())
