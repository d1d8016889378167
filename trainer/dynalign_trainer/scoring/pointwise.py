"""The judge at work: one engine, one set of weights, answers in, a score for each aspect out."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import Policy
from dynalign_contract.objective import Aspect, Objective
from dynalign_contract.settings import JudgingMethod, JudgingSettings
from dynalign_trainer.models.choices import digit_tokens, expected_digit
from dynalign_trainer.models.engine import Engine, Sampling
from dynalign_trainer.runtime.progress import Watch, part_of
from dynalign_trainer.scoring import wording
from dynalign_trainer.scoring.exhibits import Candidate, Exhibit, Exhibitor
from dynalign_trainer.scoring.scores import aggregate, mean_of, standard_error
from dynalign_trainer.scoring.wording import Wording

_FIRST_PASS: Final = 0.95
"""Share of the progress that is over when only the retries are left."""

Phrase = Callable[[Objective, str, Aspect], Wording]


@dataclass(frozen=True)
class Reading:
    """What was read off the judge for one aspect of one candidate."""

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
class Verdict:
    """A judged candidate."""

    readings: tuple[Reading, ...]
    """One an aspect, in the objective's order."""
    reward: float
    """Aggregate over the aspects, 0 to 1, before penalties; NaN when one aspect failed."""
    error: float
    """Standard error of the reward by its votes, 0 to 1; NaN for fewer than two (`scoring.standard_error`)."""
    retries: int
    """Aspects that had to be asked again."""
    cut: bool
    """Only the beginning of the candidate fitted into the context window and was judged."""


@dataclass(frozen=True)
class _Question:
    exhibit: Exhibit
    aspect: Aspect


class Judge:
    """Scores candidates for every aspect of an objective.

    The wording is the objective's. A score whose digits have less than `min_mass`, or that is NaN, is asked for once
    more, with a question that insists on one digit and a longer prefill (`wording.ask_again`; no reasons are sampled
    then), and is NaN when that fails too.
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        settings: JudgingSettings,
        *,
        policy: Policy,
        seed: Callable[..., int],
    ) -> None:
        """`seed` makes a 31-bit seed from a salt. Raises BadInputError when the tokenizer has no digit tokens."""
        self.policy = policy
        self.tokens_read = 0
        """Prompt tokens shown to the judge so far, those found in the prefix cache included."""
        self._engine = engine
        self._objective = objective
        self._settings = settings
        self._seed = seed
        again = wording.ask_again(objective, "", objective.aspects[0])
        self._digits = {
            prefill: digit_tokens(engine.tokenizer, prefill)
            for prefill in (objective.judge.prefill, again.prefill, wording.closing(objective))
        }
        self._exhibitor = Exhibitor(
            engine.tokenizer,
            objective,
            max_length=engine.max_length,
            question_tokens=_question_tokens(engine, objective, settings),
            delimiter_seed=seed("delimiters"),
        )

    def score(self, candidates: Sequence[Candidate], watch: Watch | None = None) -> list[Verdict]:
        """Judge candidates, those of one prompt adjacent so that they share its prefix; order kept.

        Raises BadInputError naming a prompt that fills the judge's context window alone.
        """
        exhibits = [self._exhibitor.show(candidate) for candidate in candidates]
        aspects = self._objective.aspects
        questions = [_Question(exhibit, aspect) for exhibit in exhibits for aspect in aspects]
        first = part_of(watch, 0.0, _FIRST_PASS)
        if self._settings.method is JudgingMethod.VOTES:
            readings = self._vote(questions, first)
        else:
            readings = self._ask(questions, wording.ask_plainly, first)
        failed = [i for i, reading in enumerate(readings) if not self._valid(reading)]
        again = self._ask([questions[i] for i in failed], wording.ask_again, part_of(watch, _FIRST_PASS, 1.0))
        for i, reading in zip(failed, again, strict=True):
            readings[i] = reading if self._valid(reading) else Reading(math.nan, max(reading.mass, readings[i].mass))
        retries = Counter(i // len(aspects) for i in failed)
        return [
            self._verdict(exhibit, readings[k * len(aspects) : (k + 1) * len(aspects)], retries[k])
            for k, exhibit in enumerate(exhibits)
        ]

    def _verdict(self, exhibit: Exhibit, readings: Sequence[Reading], retries: int) -> Verdict:
        how = self._settings.aggregate or self._objective.aggregate
        return Verdict(
            readings=tuple(readings),
            reward=aggregate([reading.score for reading in readings], how),
            error=standard_error([reading.votes for reading in readings], how),
            retries=retries,
            cut=exhibit.cut,
        )

    def _valid(self, reading: Reading) -> bool:
        return not math.isnan(reading.score) and reading.mass >= self._settings.min_mass

    def _ask(self, questions: Sequence[_Question], phrase: Phrase, watch: Watch | None) -> list[Reading]:
        wordings = [phrase(self._objective, q.exhibit.context, q.aspect) for q in questions]
        if not wordings:
            return []
        return self._read([self._ids(w) for w in wordings], wordings[0].prefill, watch)

    def _vote(self, questions: Sequence[_Question], watch: Watch | None) -> list[Reading]:
        """Sample reasons, go on from each to a digit, and average the votes that were valid."""
        settings = self._settings
        asked = [self._ids(wording.ask_for_reasons(self._objective, q.exhibit.context, q.aspect)) for q in questions]
        self.tokens_read += sum(map(len, asked))
        groups = self._engine.sample(
            asked,
            Sampling(temperature=1.0, max_tokens=settings.rationale_tokens, n=settings.votes),
            policy=self.policy,
            seeds=[
                self._seed("reasons", q.exhibit.candidate.prompt_id, q.exhibit.candidate.text, q.aspect.id)
                for q in questions
            ],
            watch=part_of(watch, 0.0, 0.8),
        )
        closing = wording.closing(self._objective)
        tail = self._engine.tokenizer.encode(closing, add_special_tokens=False)
        reasoned = [
            [*ids, *(sample.token_ids[:-1] if sample.finish_reason == "stop" else sample.token_ids), *tail]
            for ids, group in zip(asked, groups, strict=True)
            for sample in group
        ]
        votes = self._read(reasoned, closing, part_of(watch, 0.8, 1.0))
        return [self._average(votes[i : i + settings.votes]) for i in range(0, len(votes), settings.votes)]

    def _average(self, votes: Sequence[Reading]) -> Reading:
        scores = tuple(vote.score if self._valid(vote) else math.nan for vote in votes)
        return Reading(score=mean_of(scores), mass=mean_of(vote.mass for vote in votes), votes=scores)

    def _read(self, asked: Sequence[Sequence[int]], prefill: str, watch: Watch | None) -> list[Reading]:
        self.tokens_read += sum(map(len, asked))
        rows = self._engine.score_next(asked, self._digits[prefill], policy=self.policy, watch=watch)
        return [Reading(*expected_digit(row)) for row in rows]

    def _ids(self, wording: Wording) -> list[int]:
        return self._engine.chat_ids([{"role": "user", "content": wording.message}], wording.prefill)


def _question_tokens(engine: Engine, objective: Objective, settings: JudgingSettings) -> int:
    """Tokens that the longest question takes of the context window, in every wording, with the answer to it."""

    def longest(phrase: Phrase) -> int:
        wordings = [phrase(objective, "", aspect) for aspect in objective.aspects]
        return max(len(engine.chat_ids([{"role": "user", "content": w.message}], w.prefill)) for w in wordings)

    taken = longest(wording.ask_again)
    if settings.method is JudgingMethod.VOTES:
        tail = engine.tokenizer.encode(wording.closing(objective), add_special_tokens=False)
        taken = max(taken, longest(wording.ask_for_reasons) + settings.rationale_tokens + len(tail))
    return taken + 1
