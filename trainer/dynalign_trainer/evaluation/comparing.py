"""How a judge compares two answers: side by side in both orders, or each scored alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Template
from typing import Protocol

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.records import Row
from dynalign_contract.settings import JudgingSettings, WinRateMethod
from dynalign_trainer.choices import letter_tokens
from dynalign_trainer.engine import Engine, Watch
from dynalign_trainer.evaluation.statistics import Duel, decide
from dynalign_trainer.judging.judge import Candidate, Judge
from dynalign_trainer.judging.prompts import (
    Delimiters,
    control_tokens,
    longest_fitting,
    make_delimiters,
    quote,
    render_request,
)


@dataclass(frozen=True)
class Pair:
    """ANSWER rows of two policies to the same prompt."""

    candidate: Row
    opponent: Row

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
    """A policy of the run, in the stage's engine, as the judge of pairs."""

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        judging: JudgingSettings,
        *,
        policy: Policy,
        method: WinRateMethod,
        tie_margin: float,
        seed: Callable[..., int],
    ) -> None:
        """`seed` makes a 31-bit seed from a salt."""
        self.policy = policy
        self._method = method
        self._engine = engine
        self._objective = objective
        self._judging = judging
        self._tie_margin = tie_margin
        self._seed = seed
        self._forbidden = control_tokens(engine.tokenizer)

    @property
    def version(self) -> str:
        """The policy's."""
        return self.policy.version

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Side by side or each alone, as the method says."""
        match self._method:
            case WinRateMethod.PAIRWISE:
                return self.compare_pairwise(pairs, watch)
            case WinRateMethod.POINTWISE:
                return self.compare_pointwise(pairs, watch)

    def compare_pairwise(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Show both answers in both orders; p(A) / (p(A) + p(B)) is the preference for the one shown first.

        It is NaN when A and B together have less than `judging.minMass`. Answers too long for the context window are
        cut to the same number of characters. Raises BadInputError naming a prompt that leaves no room for answers, or
        when the tokenizer cannot write A and B as single tokens.
        """
        tokens = letter_tokens(self._engine.tokenizer, self._objective.compare.prefill)
        asked = [pair for pair in pairs if not pair.identical]
        prompts = [ids for pair in asked for ids in self._both_orders(pair)]
        self._engine.forget_prefixes()
        rows = self._engine.score_next(prompts, tokens, policy=self.policy, watch=watch)
        favours = iter([self._favour_first(a, b) for a, b in rows])
        return [pair.tie() if pair.identical else self._duel(pair, next(favours), 1 - next(favours)) for pair in pairs]

    def compare_pointwise(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """Score each answer alone, as in training; half the difference of the rewards, around 0.5, is the preference.

        Differences up to the tie margin are ties.
        """
        asked = [pair for pair in pairs if not pair.identical]
        judge = Judge(self._engine, self._objective, self._judging, policy=self.policy, seed=self._seed)
        answers = [_as_candidate(row) for pair in asked for row in (pair.candidate, pair.opponent)]
        self._engine.forget_prefixes()
        rewards = iter([verdict.reward for verdict in judge.score(answers, watch)])
        return [
            pair.tie() if pair.identical else self._difference(pair, next(rewards), next(rewards)) for pair in pairs
        ]

    def _duel(self, pair: Pair, first: float, second: float) -> Duel:
        outcome = decide(first, second, self._tie_margin)
        return Duel(first, second, outcome, pair.length_difference, both_orders=True)

    def _difference(self, pair: Pair, candidate: float, opponent: float) -> Duel:
        preference = 0.5 + (candidate - opponent) / 2
        outcome = decide(preference, preference, self._tie_margin / 2)
        return Duel(preference, preference, outcome, pair.length_difference, both_orders=False)

    def _favour_first(self, a: float, b: float) -> float:
        mass = math.exp(a) + math.exp(b)
        return math.exp(a) / mass if mass > 0 and mass >= self._judging.min_mass else math.nan

    def _both_orders(self, pair: Pair) -> tuple[list[int], list[int]]:
        longest = max(len(pair.candidate["text"]), len(pair.opponent["text"]))
        limit = self._engine.max_length - 1
        orders = self._orders(pair, longest)
        if max(map(len, orders)) <= limit:
            return orders
        cap = longest_fitting(longest, lambda cap: max(map(len, self._orders(pair, cap))) <= limit)
        if cap is None:
            raise BadInputError(
                f"held-out prompt {pair.candidate['prompt_id']} and the objective leave no room for two answers in the "
                f"judge's context window of {self._engine.max_length} tokens. Raise engine.maxLength or set "
                "evaluation.winRate.method: Pointwise."
            )
        return self._orders(pair, cap)

    def _orders(self, pair: Pair, cap: int) -> tuple[list[int], list[int]]:
        candidate, opponent = pair.candidate["text"][:cap], pair.opponent["text"][:cap]
        return self._ids(pair, candidate, opponent), self._ids(pair, opponent, candidate)

    def _ids(self, pair: Pair, a: str, b: str) -> list[int]:
        delimiters = make_delimiters(self._seed("delimiters"), pair.candidate["prompt_id"])
        message = build_comparison(
            self._objective, pair.candidate["messages"], a, b, delimiters=delimiters, forbidden=self._forbidden
        )
        return self._engine.chat_ids([{"role": "user", "content": message}], self._objective.compare.prefill)


def build_comparison(
    objective: Objective,
    messages: Sequence[dict[str, str]],
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


def _as_candidate(row: Row) -> Candidate:
    return Candidate(row["prompt_id"], row["messages"], row["text"])
