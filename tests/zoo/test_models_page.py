"""docs/models.md has every family of the zoo, each where its decision puts it."""

from pathlib import Path

import pytest

from zoo.families import Family, Refused
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
