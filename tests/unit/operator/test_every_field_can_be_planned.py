"""Whatever a field's pattern and limits let in can be planned and rendered, or is refused with the field's name."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynalign_operator.api.durations import MAX_DURATION_SECONDS, after, count_seconds, parse_duration
from dynalign_operator.api.schema import Schema, structural_schema
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.generate.crd import build_crd
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_operator.runfile.run_file import RunFileError, parse_run_file

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INT32 = 2**31 - 1
LARGE = (
    "9" * 31,
    "9" * 30 + "P",
    "99999999999999999999Pi",
    "0." + "0" * 25 + "1m",
    "9999999999d",
    "9999999999d" * 2,
    "24855d",
    "2147483647s",
)


def fields(node: Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every leaf of the spec; `*` is any key of a map, `[]` any item of a list."""
    children = dict(node.get("properties", {}))
    if "additionalProperties" in node:
        children["*"] = node["additionalProperties"]
    if "items" in node:
        children["[]"] = node["items"]
    if not children:
        yield path, node
    for name, child in children.items():
        yield from fields(child, (*path, name))


SPEC = structural_schema(AlignmentRun)["properties"]["spec"]
LEAVES = dict(fields(SPEC, ()))
WITH_PATTERN = {path: node for path, node in LEAVES.items() if "pattern" in node}
INTEGERS = {path: node for path, node in LEAVES.items() if node.get("type") == "integer"}
NUMBERS = {path: node for path, node in LEAVES.items() if node.get("type") == "number"}


def name_of(path: tuple[str, ...]) -> str:
    return ".".join(path)


def with_value(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A spec with this value at a leaf, and a good value at whatever that needs beside it."""
    nested: Any = value
    for name in reversed(path):
        nested = [nested] if name == "[]" else {"cpu" if name == "*" else name: nested}
    spec: dict[str, Any] = {"model": {"uri": "hf://a/b"}, "iterations": 2}
    return {**spec, **nested, "model": {**spec["model"], **nested.get("model", {})}}


def plan_or_refuse(spec: dict[str, Any], path: tuple[str, ...]) -> None:
    text = json.dumps(
        {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "a"}, "spec": spec}
    )
    try:
        run = parse_run_file(text).run
    except RunFileError as error:
        assert all(problem.text.startswith("spec.") for problem in error.problems), str(error)  # noqa: PT017
        return
    maps = {"objective": {"objective.yaml": ""}}
    for bundle in islice(rehearse(run, maps, NOW, BuildSettings()), 7):
        json.dumps([bundle.job, bundle.config_map, bundle.volume_claim, bundle.service], allow_nan=False)
        assert 0 <= bundle.job["spec"]["ttlSecondsAfterFinished"] <= INT32


@pytest.mark.parametrize("path", WITH_PATTERN, ids=name_of)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_text_that_matches_can_be_planned(path: tuple[str, ...], data: st.DataObject) -> None:
    pattern = WITH_PATTERN[path]["pattern"]
    matching = st.from_regex(pattern, fullmatch=False)
    large = st.sampled_from([text for text in LARGE if re.search(pattern, text)] or [""])
    plan_or_refuse(with_value(path, data.draw(matching | large)), path)


def edges(node: Schema) -> list[object]:
    low, high = node.get("minimum", -(2**63)), node.get("maximum", 2**64)
    return [low, high, low + 1, high - 1, low - 1, high + 1, -(2**70), 2**70]


@pytest.mark.parametrize("path", [*INTEGERS, *NUMBERS], ids=name_of)
def test_every_number_at_its_limits_can_be_planned(path: tuple[str, ...]) -> None:
    for value in edges(LEAVES[path]):
        plan_or_refuse(with_value(path, value), path)


@pytest.mark.parametrize("path", INTEGERS, ids=name_of)
def test_every_whole_number_has_limits(path: tuple[str, ...]) -> None:
    """An API server takes 64 bits; what reads a number takes what it has been tried with."""
    assert {"minimum", "maximum"} <= INTEGERS[path].keys()


def test_there_are_such_fields() -> None:
    assert len(WITH_PATTERN) > 20
    assert len(INTEGERS) > 20
    assert any(path[:1] == ("policy",) for path in WITH_PATTERN)


@given(
    st.lists(st.tuples(st.text("0123456789", min_size=1, max_size=10), st.sampled_from("dhms")), min_size=1, max_size=3)
)
def test_a_duration_is_never_too_long_for_a_clock(parts: list[tuple[str, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert parse_duration(text) == timedelta(seconds=min(count_seconds(text), MAX_DURATION_SECONDS))
    for moment in (NOW, datetime.max.replace(tzinfo=UTC)):
        assert after(moment, parse_duration(text)) >= moment


def test_the_crd_counts_as_we_do() -> None:
    """CEL is tried on a real API server; here, that there is a rule for each duration."""
    policy = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "policy"
    ]
    rules = [rule for rule in policy["x-kubernetes-validations"] if f"<= {MAX_DURATION_SECONDS}" in rule["rule"]]
    durations = [name for name, node in policy["properties"].items() if "time span" in str(node)]
    assert len(durations) == 4
    assert sorted(name for name in durations for rule in rules if f"self.{name}." in rule["rule"]) == sorted(durations)
