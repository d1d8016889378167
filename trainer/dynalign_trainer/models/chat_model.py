"""One way to ask a language model, whether it runs in this stage's engine or behind an endpoint.

Author, critic, reviser and both judges are written once, on `ChatModel`. `models.engine_model` and
`endpoints.endpoint_model` implement it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dynalign_trainer.models.choices import Choices
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; top-k is always off."""

    temperature: float
    max_tokens: int
    n: int = 1
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts at which a completion ends; they are not part of its text."""


@dataclass(frozen=True)
class ChatTurn:
    """A user's turn, and how the model's answer to it begins."""

    message: str
    prefill: str = ""
    """Beginning of the answer that is not part of the wanted text."""
    opening: str = ""
    """Beginning of the wanted text, right after the prefill."""
    written: tuple[int, ...] = ()
    """Token ids that the model wrote after the prefill in an earlier call; only for a model that takes prefills."""
    closing: str = ""
    """Text after `written`, right before the choice."""

    @property
    def lead(self) -> str:
        """The text right before the choice."""
        return self.closing or self.prefill


@dataclass(frozen=True)
class Completion:
    """What a model wrote after an opening."""

    opening: str
    """The opening that the text continues; empty if the model wrote a beginning of its own."""
    text: str
    finished: bool
    """The model ended the text itself, rather than at its maximum length."""
    token_ids: tuple[int, ...] = ()
    """The text's tokens without an end-of-sequence token; empty if they are not known."""


@dataclass
class Usage:
    """Counters of what a model was asked in one stage."""

    requests: int = 0
    tokens: int = 0
    """Read and written."""
    read: int = 0
    """Tokens of the prompts, as far as they are known."""
    cached: int = 0
    """Tokens of the prompts that a server found in its cache, as far as it says."""


class ChatModel(Protocol):
    """A model that writes texts and chooses among given answers."""

    @property
    def version(self) -> str:
        """Name in records: `base`, `iteration-003`, or `endpoint:` and the model's name."""
        ...

    @property
    def window(self) -> Window:
        """Tokenizer and context window by which questions are cut."""
        ...

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        ...

    @property
    def takes_prefill(self) -> bool:
        """Whether an answer can begin with given text or tokens.

        A model that takes no prefill is told in words how to answer, and `choose` asks it a second time if its first
        answer is none of the choices.
        """
        ...

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        """One completion for each turn, in order; None if the budget is exhausted. `sampling.n` must be 1."""
        ...

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        """Log-probabilities of the choices as the next token of each turn; shape (turns, choices), order kept.

        All are NaN where there is no answer. All turns must have the same `lead`. Raises BadInputError if the model
        cannot write each choice as one token after it.
        """
        ...

    def check_choices(self, choices: Choices, lead: str) -> None:
        """Raise BadInputError if the choices cannot be told apart after `lead`."""
        ...

    def length(self, turn: ChatTurn, choices: Choices) -> int:
        """Tokens of a turn and of the longest answer that `choose` allows."""
        ...

    def forget(self) -> None:
        """Drop cached prefixes, so that results do not depend, in their last bits, on earlier calls."""
        ...

    def exhausted_budget(self) -> str | None:
        """Which budget is exhausted and what to do, as a clause; None while something is left."""
        ...
