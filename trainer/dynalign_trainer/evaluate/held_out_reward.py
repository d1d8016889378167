"""Rewards of the answers to the held-out prompts: the policy's, the base model's, and the difference between them.

The prompts are the same in every evaluation of a run, and so are the judges, so that these rewards, unlike those that
train, can be compared over iterations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import AnswerRow, answer_length
from dynalign_trainer.evaluate.bootstrap import mean_estimate
from dynalign_trainer.evaluate.fixed_judges import FixedJudges
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.penalties import final_reward, find_penalties
from dynalign_trainer.verifiers.combining import combine_rewards


def reward_answers(
    judges: FixedJudges,
    answers: Mapping[str, Sequence[AnswerRow]],
    *,
    policy: Policy,
    known: Sequence[AnswerRow] = (),
    watch: Watch | None = None,
) -> dict[str, list[AnswerRow]]:
    """The answers of all policies with the columns of rewards; those of other policies than base and `policy` are NaN.

    `answers` are ANSWER rows by policy version. Rewards by the judges are taken over from `known` rows with the same
    answer and digest; equal answers to a prompt are judged once. Verifiers' values are those of the rows.
    """
    digest = judges.digest
    wanted = (Policy().version, policy.version)
    rows = [row for version in dict.fromkeys(wanted) for row in answers[version]]
    found = known_rewards([*known, *rows], digest)
    if judges.params.judging.weight > 0 or not judges.params.rewards:
        asked = {_key(row): row for row in rows if _key(row) not in found}
        candidates = [Candidate(row["prompt_id"], row["messages"], row["text"]) for row in asked.values()]
        if candidates:
            found |= zip(asked, judges.reward(candidates, watch), strict=True)
    return {
        version: [
            _rewarded(judges.params, row, found.get(_key(row), math.nan) if version in wanted else math.nan, digest)
            for row in given
        ]
        for version, given in answers.items()
    }


def are_rewarded(judges: FixedJudges, answers: Mapping[str, Sequence[AnswerRow]], policy: Policy) -> bool:
    """Whether the answers of `policy` and base have had their rewards from these judges already."""
    rows = [row for version in (Policy().version, policy.version) for row in answers[version]]
    return all(row.get("rewarded_by") == judges.digest and not math.isnan(row["reward"]) for row in rows)


def held_out_metrics(
    policy: Sequence[AnswerRow], base: Sequence[AnswerRow], *, confidence: float, resamples: int, seed: int
) -> MetricValues[EvaluateParams]:
    """Mean reward of the policy's answers, and by how much it exceeds the base model's, with bootstrap intervals.

    `policy` and `base` are rewarded ANSWER rows to the same prompts in the same order. Answers without a reward are
    left out of the mean, and prompts with one of either policy out of the difference.
    """
    own, other = ([row["reward"] for row in rows] for rows in (policy, base))
    differences = [value - base_value for value, base_value in zip(own, other, strict=True)]
    reward, delta = (
        mean_estimate(values, confidence=confidence, resamples=resamples, seed=seed) for values in (own, differences)
    )
    return {
        **EvaluateMetrics.held_out_reward.split(reward),
        **EvaluateMetrics.held_out_reward_delta.split(delta),
    }


def explain_missing(judges: FixedJudges, answers: Mapping[str, Sequence[AnswerRow]], policy: Policy) -> str:
    """Why answers have no reward, and how many; empty when all have one."""
    rows = [row for version in dict.fromkeys((Policy().version, policy.version)) for row in answers[version]]
    missing = sum(math.isnan(row["reward"]) for row in rows)
    if not missing:
        return ""
    reasons = "; ".join(dict.fromkeys(judges.failures)) or "the judges or verifiers could not decide them"
    return f"{missing} of {len(rows)} held-out answers have no reward, and held_out_reward leaves them out: {reasons}"


def known_rewards(rows: Iterable[AnswerRow], digest: str) -> dict[tuple[str, str], float]:
    """Prompt and text of an answer -> its reward, for rows that judges of this digest have rewarded."""
    return {
        _key(row): row["raw_reward"]
        for row in rows
        if row.get("rewarded_by") == digest and not math.isnan(row["raw_reward"])
    }


def _key(row: AnswerRow) -> tuple[str, str]:
    return row["prompt_id"], row["text"]


def _rewarded(params: EvaluateParams, row: AnswerRow, raw: float, digest: str) -> AnswerRow:
    penalties = find_penalties(
        row["text"],
        prompt=row["messages"][-1]["content"],
        length=answer_length(row),
        truncated=row["finish_reason"] == "length",
        settings=params.judging.penalties,
        max_tokens=params.evaluation.win_rate.max_tokens or params.max_tokens,
    )
    weights = {reward.name: reward.weight for reward in params.rewards}
    combined = combine_rewards(raw, params.judging.weight, row.get("verifiers", {}), weights)
    return {**row, "raw_reward": raw, "reward": final_reward(combined, penalties), "rewarded_by": digest}
