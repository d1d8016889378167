"""How an evaluation is split over shards: each has every n-th prompt, and every n-th item of a task. Pure."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """One shard's part of numbered things."""

    index: int = 0
    count: int = 1

    def has(self, number: int) -> bool:
        """Whether the thing of this number is in this part."""
        return number % self.count == self.index

    def of(self, rows: Sequence[R]) -> Sequence[R]:
        """The rows of this part, in order."""
        return rows[self.index :: self.count]

    def size(self, whole: int) -> int:
        """How many of so many things are in this part."""
        return len(range(self.index, whole, self.count))


WHOLE: Final = Part()


def interleave(parts: Sequence[Sequence[R]]) -> list[R]:
    """All rows in order, from the rows of every part by index."""
    longest = max(map(len, parts), default=0)
    return [part[place] for place in range(longest) for part in parts if place < len(part)]


def interleave_groups(parts: Sequence[Sequence[R]], group_of: Callable[[R], Hashable]) -> list[R]:
    """All rows of several groups, each of which is split for itself; groups are in the order of the first part."""
    groups: dict[Hashable, list[list[R]]] = {}
    for place, part in enumerate(parts):
        for row in part:
            groups.setdefault(group_of(row), [[] for _ in parts])[place].append(row)
    return [row for group in groups.values() for row in interleave(group)]
