"""The workflows do what a person types: their targets exist, and they test the versions that the project supports."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load(path: Path) -> dict[Any, Any]:
    workflow = yaml.safe_load(path.read_text())
    assert isinstance(workflow, dict)
    return workflow


def commands(workflow: dict[Any, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def called_targets(text: str) -> list[str]:
    """The targets of `make A B VARIABLE=value`."""
    return [
        word
        for line in re.findall(r"\bmake ([^\n&|;`]+)", text)
        for word in line.split()
        if re.fullmatch(r"[a-z-]+", word)
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_exist(path: Path) -> None:
    called = [target for command in commands(load(path)) for target in called_targets(command)]
    assert called, f"{path.name} calls no target"
    assert set(called) <= TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_right_that_it_does_not_name(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}


def test_the_unit_tests_run_on_every_supported_python() -> None:
    tested = load(ROOT / ".github/workflows/check.yml")["jobs"]["unit"]["strategy"]["matrix"]["python"]
    first, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()  # type: ignore[union-attr]
    assert tested == [f"3.{minor}" for minor in range(int(first), int(beyond))]


def test_a_pull_request_is_checked_and_tested() -> None:
    workflow = load(ROOT / ".github/workflows/check.yml")
    assert "pull_request" in workflow[True]  # YAML reads the key `on` as true
    assert {"check", "test-fast"} <= {target for command in commands(workflow) for target in called_targets(command)}


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/releasing.md", ".github/PULL_REQUEST_TEMPLATE.md"]
)
def test_a_page_names_targets_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = [
        target
        for code in re.findall(r"`(make [^`]+)`|^\s*(make .*?)(?:#.*)?$", text, re.MULTILINE)
        for target in called_targets("".join(code))
    ]
    assert named
    assert set(named) <= TARGETS
