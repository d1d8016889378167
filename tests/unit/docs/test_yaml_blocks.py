"""YAML of the documentation is valid: whole runs, parts of a specification, values of the chart."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.runfile.run_file import parse_run_file
from support.pages import ROOT, Block, blocks, pages

BLOCKS = [block for page in pages() for block in blocks(page) if block.language == "yaml"]
VALUES = yaml.safe_load((ROOT / "charts/dynalign/values.yaml").read_text())
SCHEMA = json.loads((ROOT / "charts/dynalign/values.schema.json").read_text())
KUBERNETES = {"ClusterRole": "rbac.authorization.k8s.io/v1"}
"""Kind -> API version of what pages show beside runs."""
FIELDS = {field.alias or name for name, field in AlignmentRunSpec.model_fields.items()}
AROUND = {
    "model": {"uri": "pvc://models/base"},
    "prompts": {"supplied": {"uri": "pvc://data/prompts.jsonl"}},
}
"""What the parts of a specification that a page shows are about; a part replaces the value of its field."""


def merged(values: Any, part: Any) -> Any:
    """Helm's merge: mappings key by key, anything else replaced."""
    if isinstance(values, dict) and isinstance(part, dict):
        return {**values, **{key: merged(values.get(key), value) for key, value in part.items()}}
    return part


def validate(document: dict[str, Any]) -> None:
    if "kind" in document and document["kind"] in KUBERNETES:
        assert document["apiVersion"] == KUBERNETES[document["kind"]]
        assert document["metadata"]["name"]
    elif "kind" in document:
        assert document["kind"] == "AlignmentRun"
        parse_run_file(yaml.safe_dump(document))
    elif document.keys() <= FIELDS | {"spec"}:
        spec = merged(AROUND, document.get("spec", document))
        run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "shown"}}
        parse_run_file(yaml.safe_dump({**run, "spec": spec}))
    else:
        assert document.keys() <= VALUES.keys(), f"neither fields of a run nor values of the chart: {[*document]}"
        jsonschema.validate(merged(VALUES, document), SCHEMA)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_valid(block: Block) -> None:
    documents = [*yaml.safe_load_all(block.text)]
    assert documents
    for document in documents:
        validate(document)


@pytest.mark.parametrize(
    "text",
    [
        "spec: {judging: {weigth: 1}}",
        "evaluation: {winRate: {judges: [Endpoint]}}",
        "admissionPolicy: {enabled: maybe}",
        "nothing: {of: ours}",
        "{apiVersion: dynalign.io/v1alpha1, kind: AlignmentRun, metadata: {name: x}, spec: {}}",
    ],
)
def test_what_is_wrong_is_found(text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - each of the three validators has its own
        validate(yaml.safe_load(text))


def test_yaml_is_marked_as_such() -> None:
    """Text that reads as fields of a run or as values of the chart would escape the checks."""
    escaped = []
    for page in pages():
        for block in blocks(page):
            if block.language == "text" and "\n" in block.text.strip():
                try:
                    document = yaml.safe_load(block.text)
                except yaml.YAMLError:
                    continue
                if isinstance(document, dict) and document.keys() & (VALUES.keys() | FIELDS | {"apiVersion"}):
                    escaped.append(str(block))
    assert escaped == ["docs/preflight.md:" + escaped[0].rpartition(":")[2]]  # status.training, not a specification
