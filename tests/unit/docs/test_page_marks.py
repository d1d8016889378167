"""Every block of commands says how it is tested, and every other block says what it is."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from support.page_marks import GENERATED, Mark, MarkError, Need, Place, PreparedRun, command_blocks, read_mark
from support.pages import ROOT, Block, blocks, pages

SHELLS = ("sh", "shell", "console", "zsh")
BLOCK = Block(ROOT / "README.md", 7, "bash", "make demo\n", None)


@pytest.mark.parametrize("block", command_blocks(), ids=str)
def test_a_block_of_commands_says_how_it_is_tested(block: Block) -> None:
    read_mark(block)


def test_blocks_say_what_they_are() -> None:
    """A block that says nothing might hold commands, which then would not be tested."""
    found = [block for page in pages() if page not in GENERATED for block in blocks(page)]
    unsaid = [str(block) for block in found if block.language in ("", *SHELLS)]
    assert unsaid == [], "mark commands as ```bash, output and drawings as ```text"


def test_no_mark_stands_alone() -> None:
    """A mark that is not in the line before a block of commands says nothing."""
    for page in pages():
        marks = re.findall(r"^ *<!-- test: ", page.read_text(), re.MULTILINE)
        assert len(marks) == sum(block.mark is not None and block.language == "bash" for block in blocks(page)), page


def test_a_block_without_a_mark_is_told_what_to_write() -> None:
    with pytest.raises(MarkError, match=r"README.md:7: .* Write `<!-- test: PLACE -->` .* folder, cluster.*Docker"):
        read_mark(BLOCK)


@pytest.mark.parametrize(
    "mark", ["nowhere", "folder; needs luck", "folder; wants Docker", "folder; runs a b c", "needs Docker", ""]
)
def test_a_wrong_mark_is_refused(mark: str) -> None:
    with pytest.raises(MarkError, match=r"README\.md:7"):
        read_mark(replace(BLOCK, mark=mark))


def test_what_a_mark_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "<!-- test: cluster; needs Docker, pods; runs a.yaml in ml (waiting), b; anew -->\n```bash\nmake\n```\n"
    page.write_text(f"Words.\n\n{text}")
    (block,) = blocks(page)
    assert (block.line, block.text) == (4, "make\n")
    runs = (PreparedRun("a.yaml", "ml", waits=True), PreparedRun("b", "default", waits=False))
    assert read_mark(block) == Mark(Place.CLUSTER, frozenset({Need.DOCKER, Need.PODS}), runs, begins=True)
