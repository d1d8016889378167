"""Prompts of the user's own: where their file lies, which are held out, and which an iteration trains on."""

import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dynalign_contract.records import PromptRow
from dynalign_contract.settings import PromptSettings
from dynalign_contract.supplied.amount import Amount, share_out
from dynalign_contract.supplied.files import read_supplied
from dynalign_contract.supplied.paths import supplied_path
from dynalign_contract.supplied.turns import Message

log = logging.getLogger("dynalign.prompts")

Chat = tuple[Message, ...]
Key = tuple[tuple[str, str], ...]
"""Role and text of every turn of a chat."""


@dataclass(frozen=True)
class Supply:
    """The user's prompts; empty where there are none."""

    chats: tuple[Chat, ...]
    amount: Amount
    seed: int
    """The run's."""
    columns: Mapping[Key, Mapping[str, str]] = field(default_factory=dict)
    """Chat -> values of the columns that verifiers read; of several rows with the same chat, those of the first."""

    def columns_of(self, messages: Sequence[Message]) -> dict[str, str]:
        """Column -> value in the row of a prompt; empty for prompts that are not the user's."""
        return dict(self.columns.get(_key(messages), {}))

    def held_out(self) -> Iterator[Chat]:
        """Candidates for the held-out set, in the order in which they are tried."""
        order = random.Random(f"held-out {self.seed}")  # noqa: S311 - no secret
        yield from order.sample(self.chats, len(self.chats))

    def training(self, held_out: Sequence[PromptRow], iteration: int) -> Iterator[Chat]:
        """Candidates for an iteration's training, in the order in which they are tried.

        The prompts that are not held out, shuffled once, are dealt out over the iterations and begin anew at their end.
        """
        taken = {_key(row["messages"]) for row in held_out}
        left = [chat for chat in self.chats if _key(chat) not in taken]
        order = random.Random(f"supplied {self.seed}").sample(range(len(left)), len(left))  # noqa: S311 - no secret
        start = iteration * min(self.amount.wanted, len(left))
        yield from (left[order[(start + i) % len(left)]] for i in range(len(left)))


def read_supply(settings: PromptSettings, seed: int, columns: Sequence[str] = ()) -> Supply:
    """Read the user's prompts, if any, with the values of further `columns`.

    Raises BadInputError naming the file and the lines.
    """
    if settings.supplied is None:
        return Supply((), share_out(settings, 0), seed)
    path = supplied_path(settings.supplied.uri, "prompts.supplied", os.environ)
    file = read_supplied(path, "prompts.supplied", columns)
    for note in file.notes():
        log.info("%s", note)
    values = {_key(row.turns): row.chat.columns for row in reversed(file.rows)} if columns else {}
    return Supply(tuple(file.chats), share_out(settings, len(file.rows)), seed, values)


def _key(messages: Sequence[Message]) -> Key:
    return tuple((message["role"], message["content"]) for message in messages)
