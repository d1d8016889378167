"""Comparisons of two policies' answers: side by side in both orders, or each answer scored alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from dynalign_contract.objective import Objective
from dynalign_contract.records import AnswerRow, answer_length
from dynalign_contract.settings import JudgingSettings, WinRateMethod, WinRateSettings
from dynalign_trainer.evaluate.statistics import Comparison, decide
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pairwise import AnswerPair, PairwiseJudge, Preference
from dynalign_trainer.scoring.pointwise import PointwiseJudge


@dataclass(frozen=True)
class Pair:
    """ANSWER rows of two policies to the same prompt."""

    candidate: AnswerRow
    opponent: AnswerRow

    @property
    def identical(self) -> bool:
        """Both texts are equal, so no judge is needed."""
        return bool(self.candidate["text"] == self.opponent["text"])

    @property
    def length_difference(self) -> int:
        """Tokens of the candidate minus tokens of the opponent, without their thoughts."""
        return answer_length(self.candidate) - answer_length(self.opponent)

    def tie(self) -> Comparison:
        """The comparison of identical answers."""
        return Comparison(0.5, 0.5, 0.5, self.length_difference, both_orders=False)


class PairJudge(Protocol):
    """A judge of pairs of answers."""

    @property
    def version(self) -> str:
        """The judge's name in records."""
        ...

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Comparison]:
        """A comparison for each pair, order kept; one without an answer has the outcome NaN."""
        ...


Compare = Callable[[Sequence[Pair], Watch | None], list[Comparison]]
"""Asks about pairs of different answers; a comparison for each pair, order kept."""


@dataclass(frozen=True)
class IdenticalTie:
    """A judge that is asked about different answers only; identical ones tie."""

    judge: PairwiseJudge | PointwiseJudge
    ask: Compare

    @property
    def version(self) -> str:
        """The judge's version."""
        return self.judge.version

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Comparison]:
        """Compare what differs with the judge."""
        found = iter(self.ask([pair for pair in pairs if not pair.identical], watch))
        return [pair.tie() if pair.identical else next(found) for pair in pairs]


def side_by_side(judge: PairwiseJudge, tie_margin: float) -> PairJudge:
    """Both answers in one question, in both orders; better is the answer that the judge prefers in both orders."""

    def compare(pair: Pair, preference: Preference) -> Comparison:
        first, second = preference.shown_first, preference.shown_second
        return Comparison(first, second, decide(first, second, tie_margin), pair.length_difference, both_orders=True)

    def ask(pairs: Sequence[Pair], watch: Watch | None) -> list[Comparison]:
        preferences = judge.compare([_as_answers(pair) for pair in pairs], watch)
        return [compare(pair, preference) for pair, preference in zip(pairs, preferences, strict=True)]

    return IdenticalTie(judge, ask)


KnownRewards = Mapping[tuple[str, str], float]
"""Prompt and text of an answer -> the reward that a judge has given it."""


def each_alone(judge: PointwiseJudge, tie_margin: float, known: KnownRewards = MappingProxyType({})) -> PairJudge:
    """Each answer scored alone, as in training, before penalties; none whose reward by this judge is known.

    Half the difference of the rewards, around 0.5, is the preference; differences up to the margin are ties.
    """

    def compare(pair: Pair, candidate: float, opponent: float) -> Comparison:
        preference = 0.5 + (candidate - opponent) / 2
        outcome = decide(preference, preference, tie_margin / 2)
        return Comparison(preference, preference, outcome, pair.length_difference, both_orders=False)

    def ask(pairs: Sequence[Pair], watch: Watch | None) -> list[Comparison]:
        rows = [row for pair in pairs for row in (pair.candidate, pair.opponent)]
        asked = [row for row in rows if _key(row) not in known]
        scores = iter(judge.score(list(map(_as_candidate, asked)), watch) if asked else [])
        rewards = [known[_key(row)] if _key(row) in known else next(scores).reward for row in rows]
        return [
            compare(pair, candidate, opponent)
            for pair, candidate, opponent in zip(pairs, rewards[::2], rewards[1::2], strict=True)
        ]

    return IdenticalTie(judge, ask)


def compare_by(
    model: ChatModel,
    objective: Objective,
    win_rate: WinRateSettings,
    judging: JudgingSettings,
    *,
    seed: Callable[..., int],
    known: KnownRewards = MappingProxyType({}),
) -> PairJudge:
    """The judge of `win_rate.method` on a model. `seed` makes a 31-bit seed from a salt.

    `known`: rewards that this model has given before, with this seed and these settings, for `Pointwise`.
    """
    match win_rate.method:
        case WinRateMethod.PAIRWISE:
            pairwise = PairwiseJudge(model, objective, min_mass=judging.min_mass, delimiter_seed=seed("delimiters"))
            return side_by_side(pairwise, win_rate.tie_margin)
        case WinRateMethod.POINTWISE:
            return each_alone(PointwiseJudge(model, objective, judging, seed=seed), win_rate.tie_margin, known)


def _as_answers(pair: Pair) -> AnswerPair:
    row = pair.candidate
    return AnswerPair(row["prompt_id"], row["messages"], row["text"], pair.opponent["text"])


def _key(row: AnswerRow) -> tuple[str, str]:
    return row["prompt_id"], row["text"]


def _as_candidate(row: AnswerRow) -> Candidate:
    return Candidate(row["prompt_id"], row["messages"], row["text"])
