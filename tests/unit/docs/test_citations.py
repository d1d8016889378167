"""Code that cites a page of the documentation cites one that exists, and a heading that is on it."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
CITATION = re.compile(r'(docs/[\w/-]+\.md)(?:\s*[,(]+\s*"([^"]+)")?')


def citations() -> list[tuple[str, str, str]]:
    """File, page and heading ("" where none is named) of every citation in the project's Python code."""
    found = []
    for root in ("operator", "trainer", "benchmarks", "tests"):
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            text = re.sub(r"\s*\n\s*", " ", path.read_text())
            name = str(path.relative_to(REPOSITORY))
            found += [(name, page, heading) for page, heading in CITATION.findall(text)]
    return found


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", (REPOSITORY / page).read_text(), re.MULTILINE))


def test_the_code_cites_the_design_and_the_method() -> None:
    assert {"docs/design.md", "docs/method.md"} <= {page for _, page, _ in citations()}


@pytest.mark.parametrize(("file", "page", "heading"), [c for c in citations() if "tests/unit/docs" not in c[0]])
def test_a_cited_page_and_its_heading_exist(file: str, page: str, heading: str) -> None:
    assert (REPOSITORY / page).is_file(), f"{file} cites {page}"
    assert not heading or heading in headings(page), f'{file} cites "{heading}" of {page}'
