"""Prompts of the user's own: where their file lies, which are held out, and which an iteration trains on."""

import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.records import Row
from dynalign_contract.settings import PromptSettings
from dynalign_contract.source_files import LinkError, locate
from dynalign_contract.sources import FILE_FORM, ClaimSource, PathSource, SourceError, parse_source
from dynalign_contract.supplied.amount import Amount, share_out
from dynalign_contract.supplied.files import read_supplied
from dynalign_contract.supplied.turns import Message

log = logging.getLogger("dynalign.prompts")

Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Supply:
    """The user's prompts; empty where there are none."""

    chats: tuple[Chat, ...]
    amount: Amount
    seed: int
    """The run's."""

    def held_out(self) -> Iterator[Chat]:
        """Candidates for the held-out set, in the order in which they are tried."""
        order = random.Random(f"held-out {self.seed}")  # noqa: S311 - no secret
        yield from order.sample(self.chats, len(self.chats))

    def training(self, held_out: Sequence[Row], iteration: int) -> Iterator[Chat]:
        """Candidates for an iteration's training, in the order in which they are tried.

        The prompts that are not held out, shuffled once, are dealt out over the iterations and begin anew at their end.
        """
        taken = {_key(row["messages"]) for row in held_out}
        left = [chat for chat in self.chats if _key(chat) not in taken]
        order = random.Random(f"supplied {self.seed}").sample(range(len(left)), len(left))  # noqa: S311 - no secret
        start = iteration * min(self.amount.wanted, len(left))
        yield from (left[order[(start + i) % len(left)]] for i in range(len(left)))


def supplied_path(uri: str, field: str, environment: Mapping[str, str]) -> Path:
    """Where this machine has the file that `uri` names, if it has; `field` names it in the run file, without its `uri`.

    Raises BadConfigError for an address of another kind, BadInputError where symbolic links lead out of the claim.
    """
    try:
        source = parse_source(uri)
    except SourceError as error:
        raise BadConfigError(f"{field}.uri {error}.") from error
    if not isinstance(source, ClaimSource | PathSource):
        raise BadConfigError(f"{field}.uri is {uri!r}; write {FILE_FORM}.")
    located = locate(source, environment)
    try:
        located.follow(located.path)
    except LinkError as error:
        raise BadInputError(f"{field}.uri: {error}") from error
    except OSError:  # who opens it says what is wrong
        return located.path
    return located.path


def read_supply(settings: PromptSettings, seed: int) -> Supply:
    """Read the user's prompts, if any. Raises BadInputError naming the file and the lines."""
    if settings.supplied is None:
        return Supply((), share_out(settings, 0), seed)
    file = read_supplied(supplied_path(settings.supplied.uri, "prompts.supplied", os.environ), "prompts.supplied")
    for note in file.notes():
        log.info("%s", note)
    return Supply(tuple(file.chats), share_out(settings, len(file.rows)), seed)


def _key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)
