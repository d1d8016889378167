"""The version is stated in pyproject.toml and repeated correctly everywhere else; a new one reaches all places."""

import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from release.changelog import close_section, find_faults, section, versions
from release.version import COPIES, SOURCE, Place, find_disagreements, read_version, write_version

ROOT = Path(__file__).parents[3]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The files that state the version, alone."""
    for place in (SOURCE, *COPIES):
        (tmp_path / place.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place.path, tmp_path / place.path)
    return tmp_path


def test_every_place_states_the_version_of_the_project() -> None:
    assert list(find_disagreements(ROOT)) == []


@pytest.mark.parametrize("place", COPIES, ids=lambda place: f"{place.path}: {place.pattern}")
def test_a_place_that_states_another_version_is_named(scratch: Path, place: Place) -> None:
    path = scratch / place.path
    path.write_text(re.sub(place.pattern, lambda m: m[0].replace(m[1], "9.9.9"), path.read_text(), flags=re.MULTILINE))
    (disagreement,) = find_disagreements(scratch)
    assert disagreement.startswith(f"{place.path} says 9.9.9")


def test_a_new_version_reaches_every_place(scratch: Path) -> None:
    write_version(scratch, "1.2.3rc1")
    assert read_version(scratch) == "1.2.3rc1"
    assert list(find_disagreements(scratch)) == []


@pytest.mark.parametrize("text", ["1.2", "v1.2.3", "1.2.3-rc1", ""])
def test_what_is_no_version_is_refused_before_a_file_changes(scratch: Path, text: str) -> None:
    before = read_version(scratch)
    with pytest.raises(ValueError, match=r"write X\.Y\.Z"):
        write_version(scratch, text)
    assert read_version(scratch) == before


def test_the_changelog_has_the_sections_of_its_format_in_order() -> None:
    assert list(find_faults(CHANGELOG)) == []


def test_closing_the_open_section_dates_it_and_opens_another() -> None:
    closed = close_section(CHANGELOG, "9.9.9", date(2030, 1, 2))
    assert versions(closed)[:2] == ["Unreleased", "9.9.9"]
    assert section(closed, "Unreleased") == ""
    assert section(closed, "9.9.9") == section(CHANGELOG, "Unreleased")
    assert list(find_faults(closed)) == []
    with pytest.raises(ValueError, match="nothing under Unreleased"):
        close_section(closed, "9.9.10", date(2030, 1, 3))
    with pytest.raises(ValueError, match=r"a section for 9\.9\.9 already"):
        close_section(closed, "9.9.9", date(2030, 1, 3))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("## 0.1.0 - 2030-01-01\n", "the first section is 0.1.0"),
        ("## Unreleased\n\n## 0.1.0\n", "0.1.0 has no date"),
        ("## Unreleased\n\n### Improved\n", "has the headings"),
        ("## Unreleased\n\n### Fixed\n\n### Added\n", "in the order"),
        ("## Unreleased\n\n### Added\n\n### Added\n", "each at most once"),
    ],
)
def test_a_changelog_of_another_form_is_refused(text: str, fault: str) -> None:
    assert any(fault in found for found in find_faults(text))
