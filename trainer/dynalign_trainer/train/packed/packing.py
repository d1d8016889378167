"""Which rows share a micro-batch: first-fit decreasing by token budget, pure and deterministic.

A pack is one forward and backward pass of one process. Candidates of one prompt that lie in the same pack share the
prompt's tokens, so a row costs its completion, and its prompt only where the pack does not hold it yet.
"""

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.records import BatchRow


@dataclass(frozen=True)
class Item:
    """One row, as the packer sees it; lengths in tokens."""

    number: int
    """Number of the row in the batch."""
    group: str
    """Rows of one group have the same prompt."""
    prompt: int
    completion: int


class _Rooms:
    """Free tokens of packs, in order; the first pack with enough of them is found in log2(packs) steps.

    A binary tree in a list: an inner node holds the larger one of its two children.
    """

    def __init__(self, most: int) -> None:
        """`most`: packs that there may come to be."""
        self._leaves = 1 << max(0, most - 1).bit_length()
        self._free = [-1] * (2 * self._leaves)

    def free(self, pack: int) -> int:
        return self._free[self._leaves + pack]

    def set(self, pack: int, free: int) -> None:
        node = self._leaves + pack
        self._free[node] = free
        while node > 1:
            node //= 2
            self._free[node] = max(self._free[2 * node], self._free[2 * node + 1])

    def first(self, tokens: int) -> int | None:
        """The first pack with so many free tokens; None where there is none."""
        if self._free[1] < tokens:
            return None
        node = 1
        while node < self._leaves:
            node = 2 * node if self._free[2 * node] >= tokens else 2 * node + 1
        return node - self._leaves


@dataclass(frozen=True)
class Pack:
    """Rows of one forward and backward pass."""

    rows: tuple[int, ...] = ()
    tokens: int = 0
    """Prompt and completion tokens that the pass computes, shared prompts once."""


@dataclass(frozen=True)
class PackPlan:
    """Every row that may carry loss, in exactly one pack."""

    steps: tuple[tuple[Pack, ...], ...]
    """Packs of each optimiser step, a multiple of `ranks`; the surplus ones are empty."""
    ranks: int

    def micro_batches(self, step: int) -> int:
        """Passes of every rank in one optimiser step (gradient accumulation)."""
        return len(self.steps[step]) // self.ranks

    def pack(self, step: int, micro: int, rank: int) -> Pack:
        """What one rank computes in one pass."""
        return self.steps[step][micro * self.ranks + rank]

    def of_rank(self, rank: int, first_step: int = 0) -> frozenset[int]:
        """Every row that this rank consumes from a step on."""
        packs = (pack for step in self.steps[first_step:] for pack in step[rank :: self.ranks])
        return frozenset(number for pack in packs for number in pack.rows)

    @property
    def waste(self) -> float:
        """Share of the ranks' time spent waiting, 0 to 1: tokens that a pass's largest pack has and others lack.

        Within a pack there is no padding.
        """
        passes = [step[i : i + self.ranks] for step in self.steps for i in range(0, len(step), self.ranks)]
        held = sum(self.ranks * max(pack.tokens for pack in packs) for packs in passes)
        return 1 - sum(pack.tokens for packs in passes for pack in packs) / held if held else 0.0


def plan_packs(rows: Sequence[BatchRow], *, ranks: int, budget: int) -> PackPlan:
    """Pack the unmasked rows of every optimiser step; masked rows need no pass and get none."""
    steps: list[list[Item]] = [[] for _ in range(1 + max((row["step"] for row in rows), default=-1))]
    for number, row in enumerate(rows):
        if not row["masked"]:
            item = Item(number, row["prompt_id"], len(row["prompt_ids"]), len(row["completion_ids"]))
            steps[row["step"]].append(item)
    return PackPlan(steps=tuple(spread(items, ranks=ranks, budget=budget) for items in steps), ranks=ranks)


def spread(items: Sequence[Item], *, ranks: int, budget: int) -> tuple[Pack, ...]:
    """Packs for all ranks, the largest first, of like size: that of the smallest budget which needs no more of them.

    A row longer than the budget gets a pack of its own.
    """
    ordered = in_order(items)
    wanted = max(1, -(-len(first_fit(ordered, budget)) // ranks)) * ranks
    low, high = max(1, sum(_own(items).values()) // wanted), budget
    while low < high:
        middle = (low + high) // 2
        if len(first_fit(ordered, middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    packs = sorted(first_fit(ordered, high), key=lambda pack: (-pack.tokens, pack.rows))
    return (*packs, *[Pack()] * (wanted - len(packs)))


def in_order(items: Sequence[Item]) -> list[Item]:
    """Decreasing: groups by size, the rows of each by length."""
    sizes = _own(items)
    return sorted(items, key=lambda i: (-sizes[i.group], i.group, -i.completion, i.number))


def first_fit(ordered: Sequence[Item], budget: int) -> list[Pack]:
    """Each item into the first pack that holds its prompt and has room, else into the first one with room, else into a
    new one. `budget` is in tokens.
    """
    rooms = _Rooms(len(ordered))
    packs: list[list[int]] = []
    homes: dict[str, list[int]] = {}
    for item in ordered:
        own = homes.setdefault(item.group, [])
        cost = item.completion
        place = next((pack for pack in own if rooms.free(pack) >= cost), None)
        if place is None:
            cost += item.prompt
            place = rooms.first(cost)
            if place is None:
                place = len(packs)
                packs.append([])
                rooms.set(place, budget)
            insort(own, place)
        packs[place].append(item.number)
        rooms.set(place, rooms.free(place) - cost)
    return [Pack(tuple(sorted(numbers)), budget - rooms.free(pack)) for pack, numbers in enumerate(packs)]


def _own(items: Sequence[Item]) -> Mapping[str, int]:
    """Tokens of each group, its prompt once."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, item.prompt) + item.completion
    return sizes
