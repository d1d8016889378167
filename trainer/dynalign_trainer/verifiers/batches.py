"""Rewards of other people's, asked for in batches: what they say of each answer, and why they do not."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dynalign_contract.reward_protocol import RewardItem, RewardRequest, RewardTurn
from dynalign_contract.settings import DEFAULT_BATCH, RewardRange, RewardSettings
from dynalign_trainer.verifiers.answer import UNDECIDED, Answer

log = logging.getLogger("dynalign.rewards")

Values: TypeAlias = tuple[float | None, ...]
"""What the answers of a batch are worth, in order; None where the source cannot tell."""

NULL: Final = "it answered null"


@dataclass(frozen=True)
class BatchFailure:
    """No values for a batch."""

    reason: str
    """What happened and what to do, as a sentence."""


BatchScorer: TypeAlias = Callable[[Sequence[RewardRequest]], Sequence[Values | BatchFailure]]
"""Requests -> the values of each, or why there are none."""


@dataclass(frozen=True)
class Origin:
    """Whose answers are rewarded."""

    run: str
    iteration: int


@dataclass
class BatchedReward:
    """A reward that is asked for in batches. A batch that fails is undecided, as is a value out of range."""

    settings: RewardSettings
    origin: Origin
    scorer: BatchScorer
    failures: Counter[str] = field(default_factory=Counter)
    """Reason -> answers that were left undecided for it."""

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """The value of each answer within the range, NaN where there is none."""
        requests = self._requests(answers)
        results = self.scorer(requests) if requests else ()
        return [
            value
            for request, result in zip(requests, results, strict=True)
            for value in self._read(result, len(request.items))
        ]

    def _requests(self, answers: Sequence[Answer]) -> list[RewardRequest]:
        size = self.settings.batch_size or DEFAULT_BATCH
        return [
            RewardRequest(
                run=self.origin.run,
                iteration=self.origin.iteration,
                reward=self.settings.name,
                items=tuple(map(self._item, answers[start : start + size])),
            )
            for start in range(0, len(answers), size)
        ]

    def _item(self, answer: Answer) -> RewardItem:
        return RewardItem(
            group=answer.prompt_id,
            candidate=answer.candidate,
            messages=tuple(RewardTurn(role=turn["role"], content=turn["content"]) for turn in answer.messages),
            answer=answer.text,
            columns={name: answer.columns[name] for name in self.settings.columns if name in answer.columns},
        )

    def _read(self, result: Values | BatchFailure, count: int) -> list[float]:
        if isinstance(result, BatchFailure):
            log.warning("%s: %d answers are undecided: %s", self.settings.name, count, result.reason)
            self.failures[result.reason] += count
            return [UNDECIDED] * count
        return [self._check(value) for value in result]

    def _check(self, value: float | None) -> float:
        if value is None:
            self.failures[NULL] += 1
            return UNDECIDED
        if not is_within(value, self.settings.range):
            low, high = self.settings.range.low, self.settings.range.high
            self.failures[f"it gave values outside its range of {low:g} to {high:g}"] += 1
            return UNDECIDED
        return value


def is_within(value: float, bounds: RewardRange) -> bool:
    """Whether a value is a number of the range, both ends included."""
    return math.isfinite(value) and bounds.low <= value <= bounds.high
