"""The pairwise judge: compares two answers to the same prompt, shown side by side in both orders."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_model import ChatModel, ChatTurn
from dynalign_trainer.models.choices import LETTERS, preference_for_first
from dynalign_trainer.models.quoting import control_tokens, longest_fitting, make_delimiters
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.wording import build_comparison


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one prompt."""

    prompt_id: str
    messages: Sequence[Message]
    first: str
    second: str


@dataclass(frozen=True)
class Preference:
    """Preference for the first answer of a pair, 0 to 1; NaN where the judge gave none."""

    shown_first: float
    """With the first answer shown as A."""
    shown_second: float
    """With the first answer shown as B."""


class PairwiseJudge:
    """Asks a model, whichever it is, for the letter of the better answer."""

    def __init__(self, model: ChatModel, objective: Objective, *, min_mass: float, delimiter_seed: int) -> None:
        """`min_mass` is the minimum probability that A and B need together."""
        self.model = model
        self._objective = objective
        self._min_mass = min_mass
        self._delimiter_seed = delimiter_seed
        self._forbidden = control_tokens(model.window.tokenizer)

    @property
    def version(self) -> str:
        """The model's version."""
        return self.model.version

    def compare(self, pairs: Sequence[AnswerPair], watch: Watch | None) -> list[Preference]:
        """Show both answers in both orders; p(A) / (p(A) + p(B)) is the preference for the one shown first.

        Answers too long for the context window are cut to the same number of characters. Raises BadInputError naming a
        prompt that leaves no room for answers, and whatever the model raises.
        """
        turns = [turn for pair in pairs for turn in self._both_orders(pair)]
        self.model.forget()
        rows = self.model.choose(turns, LETTERS, watch)
        found = iter([preference_for_first(a, b, self._min_mass) for a, b in rows])
        return [Preference(next(found), 1 - next(found)) for _ in pairs]

    def _both_orders(self, pair: AnswerPair) -> tuple[ChatTurn, ChatTurn]:
        longest = max(len(pair.first), len(pair.second))
        whole = self._orders(pair, longest)
        if self._fit(whole):
            return whole
        cap = longest_fitting(longest, lambda cap: self._fit(self._orders(pair, cap)))
        if cap is None:
            raise BadInputError(
                f"held-out prompt {pair.prompt_id} and the objective leave no room for two answers in the judge's "
                f"context window of {self.model.window.max_length} tokens. Raise engine.maxLength or set "
                "evaluation.winRate.method: Pointwise."
            )
        return self._orders(pair, cap)

    def _fit(self, turns: Sequence[ChatTurn]) -> bool:
        return all(self.model.length(turn, LETTERS) <= self.model.window.max_length for turn in turns)

    def _orders(self, pair: AnswerPair, cap: int) -> tuple[ChatTurn, ChatTurn]:
        first, second = pair.first[:cap], pair.second[:cap]
        return self._question(pair, first, second), self._question(pair, second, first)

    def _question(self, pair: AnswerPair, a: str, b: str) -> ChatTurn:
        delimiters = make_delimiters(self._delimiter_seed, pair.prompt_id)
        message = build_comparison(
            self._objective, pair.messages, a, b, delimiters=delimiters, forbidden=self._forbidden
        )
        return ChatTurn(message, self._objective.compare.prefill)
