"""Candidates as a judge sees them: in their context, cut where they are too long for the judge's context window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.quoting import Delimiters, control_tokens, longest_fitting, make_delimiters
from dynalign_trainer.scoring.wording import build_context

_SEAM: Final = 8
"""Tokens that a context and a question may have more together than apart."""


@dataclass(frozen=True)
class Candidate:
    """An answer in its place."""

    prompt_id: str
    messages: Sequence[Message]
    text: str


@dataclass(frozen=True)
class Exhibit:
    """What is shown of a candidate; the question about it comes after it."""

    context: str
    candidate: Candidate
    cut: bool
    """Only its beginning is shown."""


class Exhibitor:
    """Shows candidates to the judges of one stage."""

    def __init__(
        self, tokenizer: Any, objective: Objective, *, max_length: int, question_tokens: int, delimiter_seed: int
    ) -> None:
        """`question_tokens` are kept free in the context window for the longest question and the answer to it."""
        self._tokenizer = tokenizer
        self._objective = objective
        self._max_length = max_length
        self._room = max_length - question_tokens - _SEAM
        self._delimiter_seed = delimiter_seed
        self._forbidden = control_tokens(tokenizer)

    def show(self, candidate: Candidate) -> Exhibit:
        """The candidate in its context, cut to its longest beginning that leaves room for every aspect's question.

        Raises BadInputError naming a prompt that fills the judge's context window alone.
        """
        delimiters = make_delimiters(self._delimiter_seed, candidate.prompt_id)
        whole = self._context(candidate, candidate.text, delimiters)
        if self._fits(whole):
            return Exhibit(whole, candidate, cut=False)
        length = longest_fitting(
            len(candidate.text), lambda end: self._fits(self._context(candidate, candidate.text[:end], delimiters))
        )
        if length is None:
            raise BadInputError(
                f"prompt {candidate.prompt_id} and the objective's rubric leave no room for an answer in the judge's "
                f"context window of {self._max_length} tokens. Raise engine.maxLength, lower prompts.maxTokens "
                "or judging.rationaleTokens, or shorten the objective."
            )
        return Exhibit(self._context(candidate, candidate.text[:length], delimiters), candidate, cut=True)

    def _context(self, candidate: Candidate, text: str, delimiters: Delimiters) -> str:
        return build_context(
            self._objective, candidate.messages, text, delimiters=delimiters, forbidden=self._forbidden
        )

    def _fits(self, context: str) -> bool:
        return len(self._tokenizer.encode(context, add_special_tokens=False)) <= self._room
