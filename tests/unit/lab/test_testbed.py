"""The model that tests rest on is the one that they were written for, on every machine."""

import shutil
from pathlib import Path

import pytest

from lab.testbed import DIGESTS, SHIPPED, VARIABLE, check_digests, load_testbed
from lab.testbed_language import rule


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test-bed elsewhere, which the variable names."""
    folder = tmp_path / "bed"
    shutil.copytree(SHIPPED, folder)
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def test_the_one_that_ships_is_used_and_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert load_testbed().model == SHIPPED
    assert check_digests(SHIPPED) == []
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 5_000_000


def test_a_variable_names_another_one(copy: Path) -> None:
    bed = load_testbed()
    assert bed.model == copy
    assert bed.rule is rule


def _flip(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, "model.safetensors has other content"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "merges.txt").write_text("a"), "merges.txt is not listed in SHA256SUMS"),
        (lambda folder: (folder / DIGESTS).unlink(), "there is no SHA256SUMS"),
        (shutil.rmtree, "there is no SHA256SUMS"),
    ],
)
def test_a_damaged_one_is_refused_with_the_file_and_what_to_do(copy: Path, damage: object, words: str) -> None:
    damage(copy)  # type: ignore[operator]
    with pytest.raises(ValueError, match="make testbed") as refused:
        load_testbed()
    assert words in str(refused.value)
