"""The pointwise judge: scores single answers, one digit for each aspect of an objective."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dynalign_contract.objective import Aspect, Objective
from dynalign_contract.settings import JudgingMethod, JudgingSettings
from dynalign_trainer.models.chat_model import ChatModel, ChatTurn, Sampling
from dynalign_trainer.models.choices import DIGITS, digit_leads, expected_digit
from dynalign_trainer.runtime.progress import Watch, part_of
from dynalign_trainer.scoring import wording
from dynalign_trainer.scoring.contexts import Candidate, ContextBuilder, JudgeContext
from dynalign_trainer.scoring.scores import aggregate, mean_of, standard_error

_FIRST_PASS: Final = 0.95
"""Share of the progress that is over when only the retries are left."""
_REASONS: Final = 0.8
"""Share of the first pass's progress that is over when the reasons are written."""

Phrase = Callable[[Objective, str, Aspect], ChatTurn]


@dataclass(frozen=True)
class AspectScore:
    """One candidate's score for one aspect."""

    score: float
    """Expected digit, 0 to 9; NaN when it failed twice."""
    mass: float
    """Probability, 0 to 1, that the judge's next token was a digit; the mean over votes."""
    votes: tuple[float, ...] = ()
    """The votes' scores in the order of sampling, NaN for one that was not valid; empty where none was asked for."""

    @property
    def spread(self) -> float:
        """Standard deviation of the valid votes' scores, 0 to 4.5; NaN for fewer than two."""
        valid = [vote for vote in self.votes if not math.isnan(vote)]
        return statistics.pstdev(valid) if len(valid) > 1 else math.nan


@dataclass(frozen=True)
class CandidateScore:
    """A judged candidate."""

    aspects: tuple[AspectScore, ...]
    """In the objective's order."""
    reward: float
    """Aggregate over the aspects, 0 to 1, before penalties; NaN when one aspect failed."""
    error: float
    """Standard error of the reward by its votes, 0 to 1; NaN for fewer than two (`scores.standard_error`)."""
    retries: int
    """Aspects that had to be asked again."""
    truncated: bool
    """Only the beginning of the candidate fitted into the context window and was judged."""


@dataclass(frozen=True)
class _Question:
    context: JudgeContext
    aspect: Aspect


class PointwiseJudge:
    """Scores candidates for every aspect of an objective, by whatever model.

    A score is invalid when the digits have a probability below `min_mass`, or it is NaN. A model that takes prefills is
    then asked once more, with a question that insists on one digit and a longer prefill (`wording.ask_again`; no
    reasons are sampled then); other models insist by themselves. A score that stays invalid is NaN. Votes need a model
    that takes prefills; any other is asked for the digit alone.
    """

    def __init__(
        self, model: ChatModel, objective: Objective, settings: JudgingSettings, *, seed: Callable[..., int]
    ) -> None:
        """`seed` makes a 31-bit seed from a salt. Raises BadInputError when the tokenizer has no digit tokens."""
        self.model = model
        self._objective = objective
        self._settings = settings
        self._seed = seed
        self._votes = settings.method is JudgingMethod.VOTES and model.takes_prefill
        for lead in digit_leads(objective.judge.prefill):
            model.check_choices(DIGITS, lead)
        self._contexts = ContextBuilder(
            model.window, objective, question_tokens=self._question_tokens(), delimiter_seed=seed("delimiters")
        )

    @property
    def version(self) -> str:
        """The model's version."""
        return self.model.version

    def score(self, candidates: Sequence[Candidate], watch: Watch | None = None) -> list[CandidateScore]:
        """Judge candidates, those of one prompt adjacent so that they share its prefix; order kept.

        Raises BadInputError naming a prompt that fills the judge's context window alone, and whatever the model raises.
        """
        contexts = [self._contexts.build(candidate) for candidate in candidates]
        aspects = self._objective.aspects
        questions = [_Question(context, aspect) for context in contexts for aspect in aspects]
        self.model.forget()
        first = part_of(watch, 0.0, _FIRST_PASS)
        scores = self._vote(questions, first) if self._votes else self._ask(questions, wording.ask_plainly, first)
        failed = [i for i, score in enumerate(scores) if not self._valid(score)]
        again = failed if self.model.takes_prefill else []
        second = self._ask([questions[i] for i in again], wording.ask_again, part_of(watch, _FIRST_PASS, 1.0))
        retried = dict(zip(again, second, strict=True))
        for i in failed:
            scores[i] = self._settle(scores[i], retried.get(i))
        retries = Counter(i // len(aspects) for i in again)
        return [
            self._candidate_score(context, scores[k * len(aspects) : (k + 1) * len(aspects)], retries[k])
            for k, context in enumerate(contexts)
        ]

    def _settle(self, first: AspectScore, second: AspectScore | None) -> AspectScore:
        """The score after a failed first pass: a valid second one, or none."""
        if second is None:
            return AspectScore(math.nan, first.mass)
        return second if self._valid(second) else AspectScore(math.nan, max(second.mass, first.mass))

    def _candidate_score(self, context: JudgeContext, scores: Sequence[AspectScore], retries: int) -> CandidateScore:
        how = self._settings.aggregate or self._objective.aggregate
        return CandidateScore(
            aspects=tuple(scores),
            reward=aggregate([score.score for score in scores], how),
            error=standard_error([score.votes for score in scores], how),
            retries=retries,
            truncated=context.truncated,
        )

    def _valid(self, score: AspectScore) -> bool:
        return not math.isnan(score.score) and score.mass >= self._settings.min_mass

    def _ask(self, questions: Sequence[_Question], phrase: Phrase, watch: Watch | None) -> list[AspectScore]:
        return self._read([phrase(self._objective, q.context.text, q.aspect) for q in questions], watch)

    def _vote(self, questions: Sequence[_Question], watch: Watch | None) -> list[AspectScore]:
        """Sample reasons, continue each to a digit, and average the valid votes."""
        settings = self._settings
        turns = [
            wording.ask_for_reasons(self._objective, q.context.text, q.aspect)
            for q in questions
            for _ in range(settings.votes)
        ]
        sampling = Sampling(temperature=1.0, max_tokens=settings.rationale_tokens)
        seeds = [seed + vote for seed in map(self._reasons_seed, questions) for vote in range(settings.votes)]
        reasons = self.model.write(turns, sampling, seeds=seeds, watch=part_of(watch, 0.0, _REASONS))
        closing = wording.closing(self._objective)
        reasoned = [
            replace(turn, written=() if written is None else written.token_ids, closing=closing)
            for turn, written in zip(turns, reasons, strict=True)
        ]
        votes = self._read(reasoned, part_of(watch, _REASONS, 1.0))
        return [self._average(votes[i : i + settings.votes]) for i in range(0, len(votes), settings.votes)]

    def _reasons_seed(self, question: _Question) -> int:
        candidate = question.context.candidate
        return self._seed("reasons", candidate.prompt_id, candidate.text, question.aspect.id)

    def _average(self, votes: Sequence[AspectScore]) -> AspectScore:
        scores = tuple(vote.score if self._valid(vote) else math.nan for vote in votes)
        return AspectScore(score=mean_of(scores), mass=mean_of(vote.mass for vote in votes), votes=scores)

    def _read(self, turns: Sequence[ChatTurn], watch: Watch | None) -> list[AspectScore]:
        if not turns:
            return []
        return [AspectScore(*expected_digit(row)) for row in self.model.choose(turns, DIGITS, watch)]

    def _question_tokens(self) -> int:
        """Tokens that the longest question, in every wording, and the answer to it take of the context window."""

        def longest(phrase: Phrase) -> int:
            turns = [phrase(self._objective, "", aspect) for aspect in self._objective.aspects]
            return max(self.model.length(turn, DIGITS) for turn in turns)

        taken = longest(wording.ask_again if self.model.takes_prefill else wording.ask_plainly)
        if self._votes:
            tail = self.model.window.tokenizer.encode(wording.closing(self._objective), add_special_tokens=False)
            taken = max(taken, longest(wording.ask_for_reasons) + self._settings.rationale_tokens + len(tail))
        return taken
