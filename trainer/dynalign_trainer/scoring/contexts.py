"""Judge contexts: a candidate quoted below its prompt, truncated if the judge's context window is too short."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.quoting import Delimiters, control_tokens, longest_fitting, make_delimiters
from dynalign_trainer.models.window import Window
from dynalign_trainer.scoring.wording import build_context

_TOKENIZATION_SLACK: Final = 8
"""Tokens that a context and a question may have more together than apart."""


@dataclass(frozen=True)
class Candidate:
    """An answer with the prompt that it replies to."""

    prompt_id: str
    messages: Sequence[Message]
    text: str


@dataclass(frozen=True)
class JudgeContext:
    """What a judge reads about a candidate before the question."""

    text: str
    candidate: Candidate
    truncated: bool
    """Only the candidate's beginning is shown."""


class ContextBuilder:
    """Builds the contexts of one stage's candidates."""

    def __init__(self, window: Window, objective: Objective, *, question_tokens: int, delimiter_seed: int) -> None:
        """`question_tokens` are kept free in the context window for the longest question and the answer to it."""
        self._window = window
        self._objective = objective
        self._room = window.max_length - question_tokens - _TOKENIZATION_SLACK
        self._delimiter_seed = delimiter_seed
        self._forbidden = control_tokens(window.tokenizer)

    def build(self, candidate: Candidate) -> JudgeContext:
        """The candidate's context, truncated to the longest beginning that leaves room for every aspect's question.

        Raises BadInputError naming a prompt that fills the judge's context window alone.
        """
        delimiters = make_delimiters(self._delimiter_seed, candidate.prompt_id)
        whole = self._context(candidate, candidate.text, delimiters)
        if self._fits(whole):
            return JudgeContext(whole, candidate, truncated=False)
        length = longest_fitting(
            len(candidate.text), lambda end: self._fits(self._context(candidate, candidate.text[:end], delimiters))
        )
        if length is None:
            raise BadInputError(
                f"prompt {candidate.prompt_id} and the objective's rubric leave no room for an answer in the judge's "
                f"context window of {self._window.max_length} tokens. Raise engine.maxLength, lower prompts.maxTokens "
                "or judging.rationaleTokens, or shorten the objective."
            )
        return JudgeContext(self._context(candidate, candidate.text[:length], delimiters), candidate, truncated=True)

    def _context(self, candidate: Candidate, text: str, delimiters: Delimiters) -> str:
        return build_context(
            self._objective, candidate.messages, text, delimiters=delimiters, forbidden=self._forbidden
        )

    def _fits(self, context: str) -> bool:
        return len(self._window.tokenizer.encode(context, add_special_tokens=False)) <= self._room
