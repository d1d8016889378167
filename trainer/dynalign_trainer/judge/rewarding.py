"""The row of a judged candidate: what judges and verifiers made of it, and the reward that trains. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from dynalign_contract.config import JudgeParams
from dynalign_contract.objective import Objective
from dynalign_contract.records import JudgementRow, RolloutRow, ScoreRow, answer_length
from dynalign_trainer.scoring.penalties import final_reward, find_penalties
from dynalign_trainer.scoring.pointwise import CandidateScore
from dynalign_trainer.verifiers.answer import Answer
from dynalign_trainer.verifiers.combining import combine_rewards, judge_share


@dataclass(frozen=True)
class Opinion:
    """What the judge, or several together, made of a candidate."""

    scores: list[ScoreRow]
    reward: float
    """0 to 1, before verifiers and penalties; NaN where there is none."""
    error: float
    """Standard error of the reward, 0 to 1; NaN where it is not known."""
    retries: int


def answer_of(rollout: RolloutRow) -> Answer:
    """A candidate as verifiers see it."""
    return Answer(
        rollout["text"],
        answer_length(rollout),
        rollout.get("columns", {}),
        prompt_id=rollout["prompt_id"],
        candidate=rollout["candidate"],
        messages=rollout["messages"],
    )


def score_rows(objective: Objective, score: CandidateScore) -> list[ScoreRow]:
    """The columns of a score, one an aspect."""
    return [
        {"aspect": aspect.id, "score": found.score, "mass": found.mass}
        for aspect, found in zip(objective.aspects, score.aspects, strict=True)
    ]


def build_judgement(
    params: JudgeParams,
    weights: Mapping[str, float],
    rollout: RolloutRow,
    opinion: Opinion,
    values: dict[str, float],
    *,
    judge: str,
) -> JudgementRow:
    """The JUDGEMENT row of a candidate; `judge` is the version of who judged it.

    `weights` and `values` are those of the verifiers, by their names.
    """
    penalties = find_penalties(
        rollout["text"],
        prompt=rollout["messages"][-1]["content"],
        length=answer_length(rollout),
        truncated=rollout["finish_reason"] == "length",
        settings=params.judging.penalties,
        max_tokens=params.max_tokens,
    )
    weight = params.judging.weight
    row: JudgementRow = {
        "prompt_id": rollout["prompt_id"],
        "candidate": rollout["candidate"],
        "scores": opinion.scores,
        "raw_reward": opinion.reward,
        "penalties": penalties,
        "reward": final_reward(combine_rewards(opinion.reward, weight, values, weights), penalties),
        "reward_error": opinion.error * judge_share(weight, weights),
        "retries": opinion.retries,
        "judge": judge,
    }
    return {**row, "verifiers": values} if weights else row
