"""What the comment before a block of commands says to the test that runs it.

    <!-- test: cluster; needs Docker, pods; runs my-run.yaml in ml -->

The first word is where the commands run. `needs` names what the test has not got, and what therefore only looks at its
arguments: see `Need`. `runs` names files of runs that have ended before the first command, or wait for an approval
(`my-run.yaml (waiting)`); in a folder also names of runs. The blocks of a page run one after the other in one shell;
`anew` begins with another folder, for a block that is an alternative to the one before it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from support.pages import ROOT, Block, blocks, pages

SHELL: Final = "bash"
GENERATED: Final = (ROOT / "docs/reference/cli.md",)
"""Pages whose text the command line itself wrote."""
_RUN: Final = re.compile(r"(?P<name>\S+)(?: in (?P<namespace>\S+))?(?P<waits> \(waiting\))?")


class Place(StrEnum):
    """Where the commands of a block run."""

    FOLDER = "folder"
    """A folder with this repository's files, without a cluster."""
    CLUSTER = "cluster"
    """What needs a cluster: command lines are parsed, and not run."""


class Need(StrEnum):
    """What a command needs beyond that; the programs in `stand_ins` then check its arguments instead of obeying it."""

    DOCKER = "Docker"
    """Docker or kind, to build or load images: Dockerfile, context, build arguments and order of steps are checked."""
    REGISTRY = "registry"
    """A registry of images or packages to push to: what is pushed must have been built before."""
    INSTALLATION = "installation"
    """Packages of an index. `uvx` and `pipx run` start this repository's own command line."""
    PODS = "pods"
    """Containers that run: images of a cluster, logs, commands in a container, Helm's tests."""
    TIME = "time"
    """Minutes or more: `make` prints its steps only, and a benchmark its options."""


class MarkError(Exception):
    """A block's mark is missing or wrong; the message says what to write."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that exists before the commands of a block."""

    name: str
    """A file, or in a folder the name of a run."""
    namespace: str
    waits: bool


@dataclass(frozen=True)
class Mark:
    """How the commands of a block are tested."""

    place: Place
    needs: frozenset[Need]
    runs: tuple[PreparedRun, ...]
    begins: bool = False
    """Whether a new folder and a new shell begin with it."""


Session = list[tuple[Block, Mark]]
"""Blocks that run in one shell, in order."""


def command_blocks() -> list[Block]:
    """The blocks whose commands a reader types."""
    found = [block for page in pages() if page not in GENERATED for block in blocks(page)]
    return [block for block in found if block.language == SHELL]


def sessions(place: Place) -> list[Session]:
    """The blocks of commands that run at this place, by page and folder."""
    found: list[Session] = []
    for block in command_blocks():
        if block.mark is None or (mark := read_mark(block)).place is not place:
            continue
        if mark.begins or not found or found[-1][0][0].page != block.page:
            found.append([])
        found[-1].append((block, mark))
    return found


def read_mark(block: Block) -> Mark:
    """The mark of a block. Raises MarkError."""
    places, needs = ", ".join(Place), ", ".join(Need)
    if block.mark is None:
        raise MarkError(
            f"{block}: nothing says how the commands of this block are tested. Write `<!-- test: PLACE -->` in the line "
            f"before it, with PLACE one of {places}; where a command needs what the test has not got, add "
            f"`; needs NEED, NEED`, each one of {needs}; and `; runs FILE` where a run has to exist. "
            "tests/support/page_marks.py says what they mean. Output is marked `text`."
        )
    place, *clauses = (part.strip() for part in block.mark.split(";"))
    found: dict[str, list[str]] = {"needs": [], "runs": []}
    for clause in clauses:
        if clause == "anew":
            continue
        kind, _, values = clause.partition(" ")
        if kind not in found:
            raise MarkError(f"{block}: the mark has {clause!r}; write `needs ...`, `runs ...` or `anew`.")
        found[kind] += [value.strip() for value in values.split(",")]
    try:
        return Mark(
            Place(place), frozenset(map(Need, found["needs"])), tuple(map(_read_run, found["runs"])), "anew" in clauses
        )
    except ValueError as error:
        raise MarkError(f"{block}: {error} in the mark; places are {places}, needs are {needs}.") from error


def _read_run(text: str) -> PreparedRun:
    match = _RUN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no run")
    return PreparedRun(match["name"], match["namespace"] or "default", waits=match["waits"] is not None)
