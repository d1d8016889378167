"""Fixtures of the tests with one real neighbour."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model for one test to change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "source"))


@pytest.fixture
def publishing_root(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a run that has fetched the tiny model."""
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path
