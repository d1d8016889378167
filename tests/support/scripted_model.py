"""A ChatModel whose texts and digits a test decides."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.choices import Choices
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch


class Words:
    """A tokenizer with a token for every word."""

    all_special_tokens: tuple[str, ...] = ()
    added_tokens_decoder: Mapping[int, Any] = MappingProxyType({})

    def apply_chat_template(self, chat: Sequence[dict[str, str]], **_: object) -> list[int]:
        return [0] * sum(len(message["content"].split()) for message in chat)

    def encode(self, text: str, **_: object) -> list[int]:
        return [0] * len(text.split())


def a_question(turn: ChatTurn, number: int) -> str | None:
    return f"Question number {number}?"


@dataclass
class ScriptedModel:
    """Writes and scores as a test says; each request costs one token."""

    text: Callable[[ChatTurn, int], str | Completion | None] = a_question
    """Turn and number of the request -> what is written; None where the budget is exhausted."""
    digit: Callable[[str], float] = lambda message: 5.0
    """Message -> expected digit, or NaN for no answer."""
    version: str = "scripted"
    limit: float = math.inf
    """Budget in requests."""
    takes_prefill: bool = True
    window: Window = field(default_factory=lambda: Window(ChatTemplate(Words()), 1000))
    usage: Usage = field(default_factory=Usage)
    turns: list[ChatTurn] = field(default_factory=list)
    """Everything that was asked, in order."""

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        return [self._write(turn) for turn in turns]

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        rows = []
        for turn in turns:
            digit = self.digit(turn.message) if self._take(turn) else math.nan
            rows.append(logprobs_of(digit, len(choices.answers)))
        return rows

    def check_choices(self, choices: Choices, lead: str) -> None:
        """Every choice can be told apart."""

    def length(self, turn: ChatTurn, choices: Choices) -> int:
        return len(turn.message.split()) + 1

    def forget(self) -> None:
        """Nothing is cached."""

    def exhausted_budget(self) -> str | None:
        return "the purse is empty; fill it" if self.usage.requests >= self.limit else None

    def _write(self, turn: ChatTurn) -> Completion | None:
        written = self.text(turn, self.usage.requests - 1) if self._take(turn) else None
        return Completion("", written, finished=True) if isinstance(written, str) else written

    def _take(self, turn: ChatTurn) -> bool:
        self.turns.append(turn)
        if self.exhausted_budget() is not None:
            return False
        self.usage.requests += 1
        self.usage.tokens += 1
        return True


def logprobs_of(expected: float, count: int = 10) -> list[float]:
    """Log-probabilities of the numbers from 0 whose expectation is `expected`; all NaN for NaN."""
    if math.isnan(expected):
        return [math.nan] * count
    low = math.floor(expected)
    shares = {low: 1 - (expected - low), low + 1: expected - low}
    return [math.log(shares[n]) if shares.get(n, 0.0) > 0 else -math.inf for n in range(count)]
