"""docs/models.md has every family of the zoo, each where its decision puts it, and the loops that are on record."""

from pathlib import Path

import pytest

from dynalign_contract.settings import TrainingBackend
from zoo.families import Family, Passes, Refused
from zoo.loop_records import FOLDER, read_record, record_path
from zoo.loop_table import LOOPS
from zoo.models_page import main, render_page
from zoo.table import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_is_what_the_table_says(tmp_path: Path) -> None:
    assert PAGE.read_text() == render_page(), "run make generate"
    assert main(["--check", str(PAGE)]) == 0
    other = tmp_path / "models.md"
    other.write_text(PAGE.read_text().replace("On only", "none", 1))
    assert main(["--check", str(other)]) == 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_has_one_row(family: Family) -> None:
    before, _, after = PAGE.read_text().partition("## Refused\n")
    part, other = (after, before) if isinstance(family.decision, Refused) else (before, after)
    row = f"\n| {family.name} | {family.model.family} | "
    assert (part.count(row), other.count(row)) == (1, 0)


def test_at_least_sixteen_families_went_through_the_loop() -> None:
    """A record that no longer holds is renewed by `make test-zoo` with --update-goldens, or its loop mended."""
    assert len({read_record(path).family for path in FOLDER.glob("*.json")}) >= 16


def test_every_record_is_of_a_loop_of_the_table() -> None:
    records = {path: read_record(path) for path in FOLDER.glob("*.json")}
    wanted = {record_path(family.name, thinking): (family, thinking) for family, thinking in LOOPS}
    assert records.keys() <= wanted.keys()
    for path, record in records.items():
        family, thinking = wanted[path]
        assert isinstance(family.decision, Passes)
        backend = TrainingBackend.TRL if family.decision.obstacle else TrainingBackend.PACKED
        assert (record.family, record.thinking, record.backend) == (family.name, thinking, backend)
