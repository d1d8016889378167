"""Recorded judgements beside the same judge's scores of today. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import JudgeParams
from dynalign_contract.records import JudgementRow, RolloutRow
from dynalign_contract.rescore import EXACT_TOLERANCE, SAMPLED_TOLERANCE, ScoreDifference
from dynalign_contract.settings import JudgingMethod, JudgingSettings
from dynalign_trainer.judge.rewarding import Opinion, build_judgement, score_rows
from dynalign_trainer.scoring.pointwise import CandidateScore

_POINTS: Final = 9.0
"""A reward of 1 in points of an aspect's score."""
_ROUNDING: Final = 1e-6
"""What Float32 columns lose."""


@dataclass(frozen=True)
class Rescored:
    """A candidate that a judge has scored again."""

    iteration: int
    key: tuple[str, int]
    distances: tuple[float, ...]
    """Differences of everything that was compared, in points of 0 to 9; infinite where only one of two has a number."""
    differences: tuple[ScoreDifference, ...]
    """Scores that differ by more than the tolerance."""


@dataclass(frozen=True)
class _Pair:
    what: str
    recorded: float
    rescored: float
    scale: float
    """Points of 0 to 9 that a difference of 1 is."""

    @property
    def distance(self) -> float:
        if math.isnan(self.recorded) or math.isnan(self.rescored):
            return 0.0 if math.isnan(self.recorded) and math.isnan(self.rescored) else math.inf
        return abs(self.recorded - self.rescored) * self.scale


def tolerance_of(judging: JudgingSettings, asked: float | None, *, is_outside: bool) -> float:
    """Points of 0 to 9 by which a score may differ."""
    if asked is not None:
        return asked
    return SAMPLED_TOLERANCE if is_outside or judging.method is JudgingMethod.VOTES else EXACT_TOLERANCE


def compare_single(
    params: JudgeParams,
    iteration: int,
    *,
    rollout: RolloutRow,
    recorded: JudgementRow,
    score: CandidateScore,
    tolerance: float,
) -> Rescored:
    """Compare each aspect's score, their aggregate, and the reward that follows with the recorded verifiers' values."""
    weights = {reward.name: reward.weight for reward in params.rewards}
    opinion = Opinion(score_rows(params.objective, score), score.reward, score.error, score.retries)
    values = recorded.get("verifiers", {})
    today = build_judgement(params, weights, rollout, opinion, values, judge=recorded["judge"])
    before = {row["aspect"]: row["score"] for row in recorded["scores"]}
    pairs = [
        *(_Pair(row["aspect"], before.get(row["aspect"], math.nan), row["score"], 1.0) for row in today["scores"]),
        _Pair("raw_reward", recorded["raw_reward"], today["raw_reward"], _POINTS),
        _Pair("reward", recorded["reward"], today["reward"], _POINTS),
    ]
    return _compared(iteration, recorded, recorded["judge"], pairs, tolerance)


def compare_panel(iteration: int, *, judge: str, recorded: JudgementRow, reward: float, tolerance: float) -> Rescored:
    """Compare the reward of one judge of several."""
    before = recorded.get("judges", {}).get(judge, math.nan)
    return _compared(iteration, recorded, judge, [_Pair(judge, before, reward, _POINTS)], tolerance)


def largest_difference(found: Sequence[Rescored]) -> float | None:
    """Largest finite difference, in points of 0 to 9; None where nothing was compared."""
    finite = [distance for one in found for distance in one.distances if math.isfinite(distance)]
    return max(finite, default=None)


def _compared(iteration: int, recorded: JudgementRow, judge: str, pairs: Sequence[_Pair], tolerance: float) -> Rescored:
    key = recorded["prompt_id"], recorded["candidate"]
    return Rescored(
        iteration=iteration,
        key=key,
        distances=tuple(pair.distance for pair in pairs),
        differences=tuple(
            ScoreDifference(
                iteration=iteration,
                prompt_id=key[0],
                candidate=key[1],
                judge=judge,
                what=pair.what,
                recorded=_number(pair.recorded),
                rescored=_number(pair.rescored),
                tolerance=tolerance / pair.scale,
            )
            for pair in pairs
            if pair.distance > tolerance + _ROUNDING
        ),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
