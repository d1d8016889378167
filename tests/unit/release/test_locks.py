"""What `dynalign requirements` prints is complete, is what is tested here, and has nothing that only a developer needs."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dynalign_operator.cli.requirements import Flavour, read_requirements

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BASE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def pinned(text: str) -> dict[str, str]:
    """Package -> version, by markers that differ several."""
    lines = [Requirement(line) for line in text.splitlines() if line]
    return {canonicalize_name(line.name) + str(line.marker or ""): str(line.specifier) for line in lines}


@pytest.mark.parametrize("flavour", Flavour)
def test_every_line_is_one_of_the_versions_that_the_tests_run_with(flavour: Flavour) -> None:
    tested = (ROOT / "requirements" / f"{flavour}.txt").read_text()
    assert pinned(read_requirements(flavour)).items() <= pinned(tested).items(), "run make lock"


@pytest.mark.parametrize("flavour", Flavour)
def test_the_packages_that_dynalign_asks_for_are_there_in_versions_that_it_accepts(flavour: Flavour) -> None:
    wanted = [Requirement(text) for extra in ("trainer", "bundled", str(flavour)) for text in EXTRAS[extra]]
    wanted += [Requirement(text) for text in BASE]
    lines = [Requirement(line) for line in read_requirements(flavour).splitlines()]
    for requirement in wanted:
        if requirement.name == "dynalign":
            continue
        found = [line for line in lines if canonicalize_name(line.name) == canonicalize_name(requirement.name)]
        assert found, f"{requirement.name} is missing; run make lock"
        for line in found:
            (version,) = re.findall(r"==(.+)", str(line.specifier))
            assert requirement.specifier.contains(version, prereleases=True), f"{line}, but {requirement}"


@pytest.mark.parametrize("flavour", Flavour)
def test_nothing_is_there_that_only_a_developer_needs(flavour: Flavour) -> None:
    names = {canonicalize_name(Requirement(line).name) for line in read_requirements(flavour).splitlines()}
    assert names.isdisjoint({"pytest", "mypy", "ruff", "kopf", "kubernetes", "dynalign"})
