"""Which rows share a micro-batch: first-fit decreasing by token budget, pure and deterministic.

A pack is one forward and backward pass of one process. Candidates of one prompt that lie in the same pack share the
prompt's tokens, so a row costs its completion, and its prompt only where the pack does not hold it yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass
class _Pack:
    """A pack that is being filled."""

    numbers: list[int] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    tokens: int = 0

    def cost(self, item: Item) -> int:
        return item.completion + (0 if item.group in self.groups else item.prompt)

    def add(self, item: Item) -> None:
        self.tokens += self.cost(item)
        self.groups.add(item.group)
        self.numbers.append(item.number)


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
    wanted = max(1, -(-len(first_fit(items, budget)) // ranks)) * ranks
    low, high = max(1, sum(_own(items).values()) // wanted), budget
    while low < high:
        middle = (low + high) // 2
        if len(first_fit(items, middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    packs = sorted(first_fit(items, high), key=lambda pack: (-pack.tokens, pack.rows))
    return (*packs, *[Pack()] * (wanted - len(packs)))


def first_fit(items: Sequence[Item], budget: int) -> list[Pack]:
    """First-fit decreasing: groups by size, rows by length, each into the pack that holds its prompt, else the first
    with room, else a new one. `budget` is in tokens.
    """
    sizes = _own(items)
    ordered = sorted(items, key=lambda i: (-sizes[i.group], i.group, -i.completion, i.number))
    packs: list[_Pack] = []
    for item in ordered:
        fitting = [pack for pack in packs if pack.tokens + pack.cost(item) <= budget]
        at_home = next((pack for pack in fitting if item.group in pack.groups), None)
        pack = at_home or (fitting[0] if fitting else None)
        if pack is None:
            packs.append(pack := _Pack())
        pack.add(item)
    return [Pack(tuple(sorted(pack.numbers)), pack.tokens) for pack in packs]


def _own(items: Sequence[Item]) -> Mapping[str, int]:
    """Tokens of each group, its prompt once."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, item.prompt) + item.completion
    return sizes
