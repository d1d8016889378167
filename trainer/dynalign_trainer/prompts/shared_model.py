"""A ChatModel whose batches the other pods of a rollout answer too, while they wait for the prompts."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dynalign_trainer.models.chat_model import ChatModel, ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.choices import Choices
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.batches import GRAIN, Answers, Batch, part_size
from dynalign_trainer.prompts.exchange import Exchange, open_exchange
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.helping import HELP_EVERY_SECONDS
from dynalign_trainer.runtime.progress import Watch, part_of

log = logging.getLogger("dynalign.prompts")

_PATIENCE_SECONDS: Final = 2.0
"""The least time for which answers are waited for. After it, and after that of an own part, they are given here."""


@dataclass(frozen=True)
class Sharing:
    """The pods that answer, and how one waits for them."""

    pods: int
    """Pods of the rollout; 1 where nobody shares."""
    exchange: Exchange
    pause: Callable[[float], None]
    """Waits so many seconds; may raise to stop."""


def open_sharing(context: StageContext[Any]) -> Sharing:
    """The pods of this stage's rollout; one alone where the stage has a Job of its own."""

    def pause(seconds: float) -> None:
        context.stopping.wait(seconds)
        context.check_stop()

    pods = 1 if context.session is None else context.session.pods
    return Sharing(pods, open_exchange(context), pause)


@dataclass(frozen=True)
class SharedModel:
    """A model that every pod of a rollout has. What the others do not answer in time is answered here."""

    model: ChatModel
    sharing: Sharing
    is_exact: bool
    """Whether an answer depends, in its last bits, on what is asked together with it."""

    @property
    def version(self) -> str:
        """The model's version."""
        return self.model.version

    @property
    def window(self) -> Window:
        """The model's tokenizer and context window."""
        return self.model.window

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far, in all pods."""
        return self.model.usage

    @property
    def takes_prefill(self) -> bool:
        """Whether the model takes one."""
        return self.model.takes_prefill

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        """One completion for each turn, drawn with its seed."""
        size = self._size(turns, GRAIN.written)
        batch = Batch(policy=self.version, size=size, turns=tuple(turns), sampling=sampling, seeds=tuple(seeds))
        return [completion for answers in self._ask(batch, watch) for completion in answers.written]

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        """The choices' log-probabilities right after each turn's lead."""
        batch = Batch(policy=self.version, size=self._size(turns, GRAIN.chosen), turns=tuple(turns), choices=choices)
        return [list(row) for answers in self._ask(batch, watch) for row in answers.chosen]

    def check_choices(self, choices: Choices, lead: str) -> None:
        """Raise BadInputError if the choices cannot be told apart after `lead`."""
        self.model.check_choices(choices, lead)

    def length(self, turn: ChatTurn, choices: Choices) -> int:
        """Tokens of a turn and of its answer."""
        return self.model.length(turn, choices)

    def forget(self) -> None:
        """Do nothing: every part begins without cached prefixes."""

    def exhausted_budget(self) -> str | None:
        """The model's."""
        return self.model.exhausted_budget()

    def _size(self, turns: Sequence[ChatTurn], least: int) -> int:
        return part_size(len(turns), least, pods=self.sharing.pods, is_exact=self.is_exact)

    def _ask(self, batch: Batch, watch: Watch | None) -> list[Answers]:
        """Answers to all parts, in order."""
        asked = _Asked(self.model, batch, watch, at_once=1 if self.is_exact else batch.parts)
        if self.sharing.pods == 1 or batch.parts <= 1:
            while asked.missing:
                asked.answer_some()
        else:
            with self.sharing.exchange.offered(batch):
                self._share(asked)
        return [asked.found[part] for part in range(batch.parts)]

    def _share(self, asked: "_Asked") -> None:
        """Answer parts until none is left that another pod has not begun, then wait for the answers to these.

        After its first part a GPU takes all that no pod has begun at once: by then each has had its chance.
        """
        exchange, batch = self.sharing.exchange, asked.batch
        begun, own, waited = time.monotonic(), 0.0, 0.0
        while asked.missing:
            asked.receive(exchange.collect(batch, asked.missing))
            started = time.monotonic()
            if mine := exchange.take(batch, asked.at_once if own else 1):
                asked.answer(mine)
                own = max(own, time.monotonic() - started)
            elif waited > max(own, _PATIENCE_SECONDS):
                asked.answer_some()
            elif asked.missing:
                self.sharing.pause(HELP_EVERY_SECONDS)
                waited += time.monotonic() - started
        log.info(
            "%d turns in %d parts: %d parts answered by other pods, %.1f s, of which %.1f s waiting",
            len(batch.turns),
            batch.parts,
            asked.received,
            time.monotonic() - begun,
            waited,
        )


@dataclass
class _Asked:
    """A batch that is being answered."""

    model: ChatModel
    batch: Batch
    watch: Watch | None
    at_once: int
    """Parts that are answered in one call."""
    received: int = 0
    """Parts that other pods have answered."""
    found: dict[int, Answers] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        """Parts without answers."""
        return [part for part in range(self.batch.parts) if part not in self.found]

    def receive(self, answers: dict[int, Answers]) -> None:
        """Take in what other pods have answered."""
        self.found |= answers
        self.received += len(answers)
        usage = self.model.usage
        for given in answers.values():
            usage.requests += given.usage.requests
            usage.tokens += given.usage.tokens
            usage.read += given.usage.read
            usage.cached += given.usage.cached

    def answer_some(self) -> None:
        """Answer the first missing parts here, as many as are answered in one call."""
        self.answer(self.missing[: self.at_once])

    def answer(self, parts: Sequence[int]) -> None:
        """Answer these parts here."""
        if not parts:
            return
        sizes, total = [len(self.batch.places(part)) for part in parts], len(self.batch.turns)
        done = sum(answers.count for answers in self.found.values())
        watch = part_of(self.watch, done / total, (done + sum(sizes)) / total)
        answers = answer(self.model, self.batch.select(parts), watch)
        self.found |= dict(zip(parts, answers.cut(sizes), strict=True))


def answer(model: ChatModel, batch: Batch, watch: Watch | None) -> Answers:
    """A model's answers to a batch, without cached prefixes."""
    before = replace(model.usage)
    model.forget()
    written: list[Completion | None] = []
    chosen: list[list[float]] = []
    if batch.sampling is not None:
        written = model.write(batch.turns, batch.sampling, seeds=batch.seeds, watch=watch)
    elif batch.choices is not None:
        chosen = model.choose(batch.turns, batch.choices, watch)
    after = model.usage
    return Answers(
        written=tuple(written),
        chosen=tuple(map(tuple, chosen)),
        usage=Usage(
            requests=after.requests - before.requests,
            tokens=after.tokens - before.tokens,
            read=after.read - before.read,
            cached=after.cached - before.cached,
        ),
    )
