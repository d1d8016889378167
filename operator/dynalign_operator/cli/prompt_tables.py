"""What the agents yielded, and samples of it, as rich renderables. Values to renderables: nothing is read here."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Group, RenderableType
from rich.table import Table

from dynalign_contract.prompt_yield import AgentYield, PromptYield
from dynalign_operator.cli.terminal import styled

if TYPE_CHECKING:
    from dynalign_contract.records import DraftRow, PromptRow

R = TypeVar("R")


def yield_table(found: PromptYield) -> Table:
    """A line an agent: what it was given, kept and dropped, and what it cost."""
    title = f"{_NAMES.get(found.purpose, found.purpose)}: {found.found} of {found.wanted} wanted"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for heading in ("agent", "model"):
        table.add_column(heading, overflow="fold")
    for heading in ("given", "kept", "requests", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("dropped", overflow="fold")
    for agent in found.agents:
        table.add_row(
            agent.agent,
            agent.model or "-",
            f"{agent.given:,}",
            f"{agent.kept:,}",
            *((f"{agent.requests:,}", f"{agent.tokens:,}") if agent.model else ("-", "-")),
            describe_drops(agent),
        )
    return table


_NAMES: Final = {"train": "training prompts", "heldout": "held-out prompts"}


def describe_drops(agent: AgentYield) -> str:
    """`12 duplicate, 3 short`, the most frequent first; `-` where nothing was dropped."""
    drops = sorted(agent.dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {cause}" for cause, number in drops) or "-"


def pick_samples(rows: Sequence[R], count: int) -> list[R]:
    """Up to `count` rows, spread evenly over their order; always the same ones."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def pick_dropped(drafts: "Sequence[DraftRow]") -> "list[DraftRow]":
    """The first dropped draft of every cause that has a text."""
    first: dict[str, DraftRow] = {}
    for draft in drafts:
        if draft["outcome"] != "kept" and draft["text"]:
            first.setdefault(draft["outcome"], draft)
    return list(first.values())


def sample_list(prompts: "Sequence[PromptRow]", dropped: "Sequence[DraftRow]") -> Group:
    """Prompts with score, seed and, where they were revised, the original; then one draft a cause of drops."""
    parts: list[RenderableType] = []
    for row in prompts:
        parts += _prompt_lines(row)
    if dropped:
        parts += ["", styled("dropped, for example", style="bold")]
        parts += [styled(f"{row['outcome']} ({_score(row['score'])}): {row['text']}") for row in dropped]
    return Group(*parts)


def _prompt_lines(row: "PromptRow") -> list[RenderableType]:
    words = "\n".join(message["content"] for message in row["messages"])
    facets = ", ".join(f"{name}: {value}" for name, value in sorted(row["facets"].items()))
    lines: list[RenderableType] = [
        "",
        styled(f"{row['prompt_id']}  {_score(row['critic_score'])}", style="bold"),
        styled(words),
    ]
    if row["draft"]:
        lines.append(styled(f"was ({_score(row['draft_score'])}): {row['draft']}", style="dim"))
    lines.append(styled(facets or row["source"], style="dim"))
    return lines


def _score(value: float) -> str:
    return "no score" if math.isnan(value) else f"score {value:.2f}"
