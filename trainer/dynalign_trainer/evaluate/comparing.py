"""How a judge compares two answers: side by side in both orders, or each scored alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Protocol

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.records import AnswerRow
from dynalign_contract.settings import WinRateMethod, WinRateSettings
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.evaluate.judge_models import JudgeModel
from dynalign_trainer.evaluate.statistics import Duel, decide
from dynalign_trainer.models.quoting import (
    Delimiters,
    control_tokens,
    longest_fitting,
    make_delimiters,
    quote,
    render_request,
)
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.exhibits import Candidate


@dataclass(frozen=True)
class Pair:
    """ANSWER rows of two policies to the same prompt."""

    candidate: AnswerRow
    opponent: AnswerRow

    @property
    def identical(self) -> bool:
        """Both say the same; nobody needs to be asked."""
        return bool(self.candidate["text"] == self.opponent["text"])

    @property
    def length_difference(self) -> int:
        """Tokens of the candidate minus tokens of the opponent."""
        return len(self.candidate["completion_ids"]) - len(self.opponent["completion_ids"])

    def tie(self) -> Duel:
        """The comparison of identical answers."""
        return Duel(0.5, 0.5, 0.5, self.length_difference, both_orders=False)


class PairJudge(Protocol):
    """Whoever can say which of two answers is the better one: weights of the run, or a model behind a URL."""

    @property
    def version(self) -> str:
        """What the records call it."""
        ...

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """A duel for each pair, order kept; one without an answer has the outcome NaN."""
        ...


class Comparer:
    """A model as the judge of pairs."""

    def __init__(
        self,
        model: JudgeModel,
        objective: Objective,
        settings: WinRateSettings,
        *,
        min_mass: float,
        window: Window,
        delimiter_seed: int,
    ) -> None:
        """`min_mass` is the least probability that A and B need together. `window` is the run's own."""
        self._model = model
        self._objective = objective
        self._settings = settings
        self._min_mass = min_mass
        self._window = window
        self._delimiter_seed = delimiter_seed
        self._forbidden = control_tokens(window.tokenizer)

    @property
    def version(self) -> str:
        """The model's."""
        return self._model.version

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Side by side or each alone, as the method says."""
        match self._settings.method:
            case WinRateMethod.PAIRWISE:
                return self.compare_pairwise(pairs, watch)
            case WinRateMethod.POINTWISE:
                return self.compare_pointwise(pairs, watch)

    def compare_pairwise(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Show both answers in both orders; p(A) / (p(A) + p(B)) is the preference for the one shown first.

        Answers too long for the context window are cut to the same number of characters. Raises BadInputError naming a
        prompt that leaves no room for answers, and whatever the model raises.
        """
        questions = [question for pair in pairs if not pair.identical for question in self._both_orders(pair)]
        favours = iter([favour_first(a, b, self._min_mass) for a, b in self._model.choose(questions, watch)])
        return [pair.tie() if pair.identical else self._duel(pair, next(favours), 1 - next(favours)) for pair in pairs]

    def compare_pointwise(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Score each answer alone, as in training; half the difference of the rewards, around 0.5, is the preference.

        Differences up to the tie margin are ties.
        """
        asked = [pair for pair in pairs if not pair.identical]
        answers = [_as_candidate(row) for pair in asked for row in (pair.candidate, pair.opponent)]
        rewards = iter(self._model.reward(answers, watch))
        return [
            pair.tie() if pair.identical else self._difference(pair, next(rewards), next(rewards)) for pair in pairs
        ]

    def _duel(self, pair: Pair, first: float, second: float) -> Duel:
        outcome = decide(first, second, self._settings.tie_margin)
        return Duel(first, second, outcome, pair.length_difference, both_orders=True)

    def _difference(self, pair: Pair, candidate: float, opponent: float) -> Duel:
        preference = 0.5 + (candidate - opponent) / 2
        outcome = decide(preference, preference, self._settings.tie_margin / 2)
        return Duel(preference, preference, outcome, pair.length_difference, both_orders=False)

    def _both_orders(self, pair: Pair) -> tuple[str, str]:
        longest = max(len(pair.candidate["text"]), len(pair.opponent["text"]))
        whole = self._orders(pair, longest)
        if all(map(self._model.fits, whole)):
            return whole
        cap = longest_fitting(longest, lambda cap: all(map(self._model.fits, self._orders(pair, cap))))
        if cap is None:
            raise BadInputError(
                f"held-out prompt {pair.candidate['prompt_id']} and the objective leave no room for two answers in the "
                f"judge's context window of {self._window.max_length} tokens. Raise engine.maxLength or set "
                "evaluation.winRate.method: Pointwise."
            )
        return self._orders(pair, cap)

    def _orders(self, pair: Pair, cap: int) -> tuple[str, str]:
        candidate, opponent = pair.candidate["text"][:cap], pair.opponent["text"][:cap]
        return self._question(pair, candidate, opponent), self._question(pair, opponent, candidate)

    def _question(self, pair: Pair, a: str, b: str) -> str:
        delimiters = make_delimiters(self._delimiter_seed, pair.candidate["prompt_id"])
        messages = pair.candidate["messages"]
        return build_comparison(self._objective, messages, a, b, delimiters=delimiters, forbidden=self._forbidden)


def favour_first(a: float, b: float, min_mass: float) -> float:
    """The preference for what is shown first, 0 to 1, from the log-probabilities of A and B.

    NaN when one of them is NaN, or when both together have less than `min_mass`.
    """
    mass = math.exp(a) + math.exp(b)
    return math.exp(a) / mass if mass > 0 and mass >= min_mass else math.nan


def build_comparison(
    objective: Objective,
    messages: Sequence[Message],
    a: str,
    b: str,
    *,
    delimiters: Delimiters,
    forbidden: Sequence[str],
) -> str:
    """What the judge reads about answers A and B; both are quoted data. Pure."""
    barred = (delimiters.nonce, *forbidden)
    return Template(objective.compare.message).substitute(
        preamble=objective.preamble,
        rubric=objective.rubric,
        prompt=quote(render_request(messages), barred),
        a=quote(a, barred),
        b=quote(b, barred),
        open=delimiters.open,
        close=delimiters.close,
    )


def _as_candidate(row: AnswerRow) -> Candidate:
    return Candidate(row["prompt_id"], row["messages"], row["text"])
