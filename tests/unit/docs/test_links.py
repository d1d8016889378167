"""Pages name files of the repository that exist: as links, and as paths in code spans. `make docs` also checks anchors."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
FOLDERS = ("docs", "charts", "images", "tests/cluster", "requirements")
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md"))]
)

LINK = re.compile(r"\]\((?!#)(?![a-z]+:)([^)\s#]+)")
NAMED_FILE = re.compile(
    r"`((?:\.github|benchmarks|charts|crds|docs|examples|images|operator|requirements|tests|trainer)/[\w./-]+)`"
)


def prose(page: Path) -> str:
    """The text without fenced blocks, whose contents are examples."""
    return re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def named_files(page: Path) -> Iterator[tuple[str, Path]]:
    text = prose(page)
    yield from ((link, page.parent / link) for link in LINK.findall(text))
    if page.name != "CHANGELOG.md":  # it tells of files as they were
        yield from ((path, REPOSITORY / path) for path in NAMED_FILE.findall(text))


def test_pages_are_found_and_name_files() -> None:
    assert sum(1 for page in PAGES for _ in named_files(page)) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    missing = [name for name, path in named_files(page) if not path.exists()]
    assert not missing, f"{page.relative_to(REPOSITORY)} names {missing}"
