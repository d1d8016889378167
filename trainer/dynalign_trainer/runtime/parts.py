"""A stage's work in parts, so that a restarted stage keeps what is finished."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import remove
from dynalign_contract.layout import part_name
from dynalign_contract.records import Table, read_rows

log = logging.getLogger("dynalign.parts")

In = TypeVar("In")
R = TypeVar("R")


@dataclass(frozen=True)
class Part(Generic[In]):
    """The inputs of one Parquet part."""

    index: int
    inputs: tuple[In, ...]

    @property
    def name(self) -> str:
        """File name of the part."""
        return part_name(self.index)


def split_parts(inputs: Sequence[In], size: int) -> list[Part[In]]:
    """Consecutive parts of `size` inputs each; the last may be smaller."""
    return [Part(k, tuple(inputs[i : i + size])) for k, i in enumerate(range(0, len(inputs), size))]


def reuse_finished_parts(
    folder: Path, parts: Sequence[Part[In]], table: Table[R], is_complete: Callable[[Part[In], list[R]], bool]
) -> dict[int, list[R]]:
    """Rows of the parts that an earlier attempt finished, by index.

    Removes files that cannot be read, are incomplete, or belong to no part; they are made again.
    """
    expected = {part.name: part for part in parts}
    finished = {}
    for path in sorted(folder.glob("part-*.parquet")):
        part = expected.get(path.name)
        rows = _read(path, table)
        if part is not None and rows is not None and is_complete(part, rows):
            finished[part.index] = rows
        else:
            log.warning("%s is not a whole part of this stage and is made again", path)
            remove(path)
    return finished


def _read(path: Path, table: Table[R]) -> list[R] | None:
    try:
        return read_rows(path, table)
    except CorruptArtifactError:
        return None
