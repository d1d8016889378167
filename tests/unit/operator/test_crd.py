"""The CRD: structural by Kubernetes' rules, true to the models, and not drifted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dynalign_operator.api.rules import CLUSTER_RULES, RULES, TRANSITIONS
from dynalign_operator.api.schema import Schema, structural_schema
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec, ModelSpec
from dynalign_operator.generate.crd import _describe_form, _escape, build_crd, build_schema, main, render_crd
from dynalign_operator.generate.spec_page import render_reference
from dynalign_operator.generate.spec_prose import MINIMAL
from dynalign_operator.runfile.run_file import parse_run_file

ROOT = Path(__file__).parents[3]
SCHEMA = build_schema()
FORBIDDEN = {"$ref", "$defs", "definitions", "title", "const", "oneOf", "not", "examples", "uniqueItems", "x-form"}


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}.{keyword}")


def test_structural() -> None:
    for path, node in nodes(SCHEMA):
        assert not FORBIDDEN & node.keys(), path
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node, path
        else:
            assert isinstance(node["type"], str), path
            assert "anyOf" not in node, path
        assert not {"properties", "additionalProperties"} <= node.keys(), path
        assert node.get("type") != "array" or {"items", "x-kubernetes-list-type"} <= node.keys(), path
        assert set(node.get("x-kubernetes-list-map-keys", [])) <= set(node.get("items", {}).get("required", [])), path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(bound, True) is True, path


def test_strings_lists_and_maps_of_the_spec_are_bounded() -> None:
    """CEL's cost estimate multiplies by the size of what a rule reads."""
    for path, node in nodes(SCHEMA["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


def with_defaults(schema: Schema, value: Any) -> Any:
    """Defaulting as the API server does it: a field's default, then the defaults inside it."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = yaml.safe_load(yaml.safe_dump(child["default"]))
            if name in value:
                with_defaults(child, value[name])
    return value


def merge(value: Any, over: Any) -> Any:
    """`value` with the fields of `over` in the place of its own."""
    if isinstance(value, dict) and isinstance(over, dict):
        return {name: merge(value.get(name), over.get(name, value.get(name))) for name in value.keys() | over.keys()}
    return over


def test_defaults_are_those_of_the_models() -> None:
    spec = with_defaults(SCHEMA["properties"]["spec"], {"model": {"uri": "hf://a/b"}})
    model = AlignmentRunSpec(model=ModelSpec(uri="hf://a/b"))
    assert AlignmentRunSpec.model_validate(spec) == model
    dumped = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert merge(spec, dumped) == spec, "a field that the dump leaves out has its default (`exclude_if`)"


def test_defaults_of_objects_are_complete() -> None:
    """An API server refuses a CRD in which a CEL rule reads a field that an object's default lacks."""
    for path, node in nodes(SCHEMA["properties"]["spec"]):
        if "properties" in node and "default" in node:
            assert node["default"] == with_defaults(node, {}), path


def test_every_field_of_the_models_is_in_the_schema() -> None:
    fields = {field.alias for field in AlignmentRunSpec.model_fields.values()}
    assert SCHEMA["properties"]["spec"]["properties"].keys() == fields
    assert SCHEMA["properties"]["spec"]["required"] == ["model"]
    assert SCHEMA["properties"]["metadata"]["properties"].keys() == {"name", "generateName"}


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("crds/samples/*.yaml")]), ids=lambda path: path.name
)
def test_examples_fit_schema_and_models(path: Path) -> None:
    runs = [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "AlignmentRun"]
    assert len(runs) == 1
    jsonschema.Draft4Validator(SCHEMA).validate(runs[0])
    AlignmentRun.model_validate(runs[0])


def test_full_sample_shows_every_field() -> None:
    """Fields that exclude another one stand there as comments."""
    text = (ROOT / "crds/samples/full.yaml").read_text()
    sample = yaml.safe_load(text)["spec"]
    for path, _ in nodes(SCHEMA["properties"]["spec"]):
        if path.startswith(".stages.") and not path.startswith(".stages.train"):
            continue
        value: Any = sample
        for name in filter(None, path.split(".")):
            if name in ("items", "additionalProperties") or not isinstance(value, dict):
                break
            assert name in value or f"# {name}:" in text, path
            value = value.get(name)


def test_every_rule_is_in_the_crd() -> None:
    written = [(v["rule"], v["message"]) for _, node in nodes(SCHEMA) for v in node.get("x-kubernetes-validations", [])]
    for rule in (*RULES, *CLUSTER_RULES):
        assert (rule.cel, f"{rule.field} {rule.message}".strip()) in written
    for transition in TRANSITIONS:
        assert (transition.cel, transition.message) in written


def test_texts_in_message_expressions_end_where_they_should() -> None:
    """An API server drops an expression that does not compile, and with it the sentence that quotes the value."""
    found = [
        v["messageExpression"]
        for _, node in nodes(SCHEMA)
        for v in node.get("x-kubernetes-validations", [])
        if "messageExpression" in v
    ]
    assert found
    assert all(re.sub(r"\\'", "", expression).count("'") % 2 == 0 for expression in found)
    assert _describe_form("self", "a user's form").endswith(r"a user\'s form'")


def test_no_pattern_answers_with_itself() -> None:
    """A text of a form is refused by a rule, whose message says the form in words."""
    spec = structural_schema(AlignmentRun)["properties"]["spec"]
    forms = [path for path, node in nodes(spec) if "x-form" in node]
    patterns = [path for path, node in nodes(SCHEMA["properties"]["spec"]) if "pattern" in node]
    by_path = dict(nodes(SCHEMA["properties"]["spec"]))
    assert len(forms) > 20
    assert patterns == []
    for path in forms:
        rules = by_path[path]["x-kubernetes-validations"]
        assert ".matches(r'" in rules[0]["rule"], path
        assert "; write " in rules[0]["messageExpression"], path


def test_the_literals_of_every_rule_end_where_they_should() -> None:
    """The API server refuses the whole CRD for one quotation mark or backslash too many."""
    literal = re.compile(r"""\br'[^']*'|'(?:[^'\\]|\\['"\\nrt])*'|"(?:[^"\\]|\\['"\\nrt])*\"""")
    count = 0
    for path, node in nodes(SCHEMA):
        for rule in node.get("x-kubernetes-validations", ()):
            for expression in (rule["rule"], rule.get("messageExpression", "''")):
                rest = literal.sub("", expression)
                assert re.fullmatch(r"[\w\s.()\[\]{}!<>=?:+*/%,&|-]*", rest), f"{path}: {expression}"
                count += 1
    assert count > 100
    assert _escape(r"a\b's") == r"a\\b\'s"


def test_transitions() -> None:
    by_path = {transition.at: transition.holds for transition in TRANSITIONS}
    assert by_path["spec.iterations"](3, 4)
    assert not by_path["spec.iterations"](3, 2)
    assert by_path["spec.model"](ModelSpec(uri="hf://a/b"), ModelSpec(uri="hf://a/b"))
    assert not by_path["spec.model"](ModelSpec(uri="hf://a/b"), ModelSpec(uri="hf://a/c"))


def test_printer_columns_and_subresource() -> None:
    version = build_crd()["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    names = [column["name"].upper() for column in version["additionalPrinterColumns"]]
    assert names == [
        "PHASE",
        "ITERATION",
        "STAGE",
        "PROGRESS",
        "REWARD",
        "WINRATE",
        "CAPABILITYDELTA",
        "GOODPUT",
        "AGE",
    ]
    wide = [column["name"] for column in version["additionalPrinterColumns"] if column.get("priority")]
    assert wide == ["CapabilityDelta", "Goodput"]
    for column in version["additionalPrinterColumns"]:
        node = SCHEMA
        for name in column["jsonPath"].removeprefix(".").split("."):
            if name == "metadata":
                break
            node = node["properties"][name]
        assert column["type"] in (node["type"], "date")


def test_check_finds_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crd.yaml"
    assert main(["--write", str(path)]) == 0
    assert main(["--check", str(path)]) == 0
    path.write_text(path.read_text().replace("maximum: 1000\n", "maximum: 9\n"))
    assert main(["--check", str(path)]) == 1
    assert "-                maximum: 9" in capsys.readouterr().out


def test_what_is_generated_is_committed() -> None:
    assert (ROOT / "crds/dynalign.io_alignmentruns.yaml").read_text() == render_crd()
    assert (ROOT / "docs/spec/alignmentrun.md").read_text() == render_reference()


def test_every_field_is_explained() -> None:
    unexplained = [
        path
        for name in ("spec", "status")
        for path, node in nodes(SCHEMA["properties"][name], name)
        if not path.endswith((".items", ".additionalProperties")) and not node.get("description")
    ]
    assert unexplained == []


def test_the_reference_has_every_field_and_no_dead_link() -> None:
    page = render_reference()
    for name in ("spec", "status"):
        for path, _ in nodes(SCHEMA["properties"][name], name):
            parent, _, field = path.rpartition(".")
            if parent and field not in ("items", "additionalProperties"):
                assert f"| `{field}` |" in page, path
    anchors = {
        re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.M)
    }
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    files = {link.partition("#")[0] for link in links if not link.startswith("#")}
    assert [file for file in files if not (ROOT / "docs/spec" / file).exists()] == []


def test_the_reference_says_what_may_change() -> None:
    rows = {
        (section, field): change
        for section, table in re.findall(r"^## (spec\S*)\n(.*?)(?=^## )", render_reference(), re.M | re.S)
        for field, change in re.findall(r"^\| `(\w+)` \|(?: [^|]*(?:\\\|[^|]*)* \|){2} ([a-zA-Z ]*) \|", table, re.M)
    }
    assert rows["spec", "iterations"] == "up only"
    assert rows["spec.model", "uri"] == "never"
    assert rows["spec.policy", "deadline"] == "at once"
    assert rows["spec.policy", "ttlAfterFinished"] == "next Job"
    assert rows["spec.training", "nodes"] == "next Job"


def test_the_example_of_the_reference_is_a_run() -> None:
    assert MINIMAL in render_reference()
    assert parse_run_file(MINIMAL).run.spec.iterations == 3


def test_enum_values_are_explained() -> None:
    judge = SCHEMA["properties"]["spec"]["properties"]["judging"]["properties"]["judge"]
    assert "`Lagged`: The policy of `lag` iterations ago." in judge["description"]
