"""The pages of the repository, as a reader copies from them: fenced blocks, command lines, code spans."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FOLDERS = ("docs", "charts", "images", "tests/cluster", ".github")
_FENCE = re.compile(
    r"(?:^ *<!-- test: (?P<mark>[^\n]*) -->\n)?"
    r"(?P<fence>^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```)",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"`([^`\n]+)`")
_LAUNCHERS = (("uvx",), ("pipx", "run"))
"""Programs that run the one whose name follows, without installing it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None = None
    """What the comment before it says to the test that runs it, see `support.page_marks`."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Words of every command line; what is behind a pipe, `&&` or `;` is one of its own."""
        for line in self.text.replace("\\\n", " ").splitlines():
            yield from split_commands(line)


def pages() -> list[Path]:
    """Every page but the changelog, which tells of commands as they were."""
    found = [*ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    return sorted(page for page in found if page.name != "CHANGELOG.md")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        yield Block(page, line, match["language"].strip(), textwrap.dedent(match["text"]), match["mark"])


def spans(page: Path) -> Iterator[str]:
    """The code spans of a page outside its blocks."""
    yield from _SPAN.findall(_FENCE.sub("", page.read_text()))


def split_commands(line: str) -> Iterator[list[str]]:
    """Words of the commands in a line, without `.venv/bin/` and what runs them, redirections and their targets."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.wordchars += "$:"
    try:
        words = list(lexer)
    except ValueError:  # a quotation mark that ends in a later line
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ("|", "||", "&&", ";", "(", ")", "&"):
            if command:
                yield _bare(command)
            command = []
        else:
            command.append(word)


def _bare(command: list[str]) -> list[str]:
    for launcher in _LAUNCHERS:
        if tuple(command[: len(launcher)]) == launcher and "dynalign" in command:
            command = command[command.index("dynalign") :]
    if ">" in command:
        command = command[: command.index(">")]
    return [command[0].removeprefix(".venv/bin/"), *command[1:]] if command else command
