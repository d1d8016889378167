"""The rows of a judged shard, with the reward of every judge in a column. Pure."""

import math
from collections.abc import Mapping, Sequence

from dynalign_contract.config import JudgeParams
from dynalign_contract.records import CanaryRow, JudgementRow, ScoreRow
from dynalign_contract.settings import Noise
from dynalign_trainer.judge.groups import RolloutGroup
from dynalign_trainer.judge.panel.opinions import Opinions
from dynalign_trainer.judge.panel.questions import Key, Questions, keys_of
from dynalign_trainer.judge.rewarding import Opinion, answer_of, build_judgement
from dynalign_trainer.scoring.combining import (
    CombinationRule,
    combined_error,
    disagreement_error,
    disagreements,
    weighted,
)
from dynalign_trainer.scoring.scores import mean_of
from dynalign_trainer.verifiers.verifier import Verifier, verify, weights_of


def panel_version(rule: CombinationRule, opinions: Mapping[str, Opinions]) -> str:
    """`NAME=VERSION` of every judge whose rewards count, separated by spaces."""
    return " ".join(f"{name}={opinions[name].member.model.version}" for name in rule.weights)


def disagreements_by_key(
    groups: Sequence[RolloutGroup], rule: CombinationRule, opinions: Mapping[str, Opinions]
) -> dict[Key, float]:
    """Key of each candidate -> the disagreement of the judges whose rewards count (`combining.disagreements`)."""
    found: dict[Key, float] = {}
    for group in groups:
        keys = keys_of(group)
        rewards = [{name: opinions[name].rewards[key] for name in rule.weights} for key in keys]
        found |= dict(zip(keys, disagreements(rewards), strict=True))
    return found


def judgement_rows(
    params: JudgeParams,
    verifiers: Sequence[Verifier],
    groups: Sequence[RolloutGroup],
    rule: CombinationRule,
    opinions: Mapping[str, Opinions],
) -> list[JudgementRow]:
    """JUDGEMENT rows of whole groups."""
    version, apart = panel_version(rule, opinions), disagreements_by_key(groups, rule, opinions)
    weights = weights_of(verifiers)
    values = iter(verify(verifiers, [answer_of(row) for group in groups for row in group.candidates]))
    rows: list[JudgementRow] = []
    for group in groups:
        for key, rollout in zip(keys_of(group), group.candidates, strict=True):
            said = {name: found.rows[key] for name, found in opinions.items()}
            rewards = {name: row["reward"] for name, row in said.items()}
            shares = rule.shares(rewards)
            counting = {name: rewards[name] for name in rule.weights}
            error = (
                disagreement_error(apart[key], counting)
                if params.judging.noise is Noise.DISAGREEMENT
                else combined_error(shares, {name: row["error"] for name, row in said.items()})
            )
            opinion = Opinion(
                scores=combined_scores(shares, {name: row["scores"] for name, row in said.items()}),
                reward=weighted(shares, rewards),
                error=error,
                retries=sum(row["retries"] for row in said.values()),
            )
            row = build_judgement(params, weights, rollout, opinion, next(values), judge=version)
            rows.append({**row, "judges": rewards})
    return rows


def canary_rows(
    questions: Questions,
    rule: CombinationRule,
    opinions: Mapping[str, Opinions],
    scores: Mapping[str, list[list[ScoreRow]]],
) -> list[CanaryRow]:
    """CANARY rows; `scores` are those of each judge for each canary."""
    version = panel_version(rule, opinions)
    rows: list[CanaryRow] = []
    for index, canary in enumerate(questions.canaries):
        rewards = {name: found.canaries[index].reward for name, found in opinions.items()}
        shares = rule.shares(rewards)
        rows.append(
            {
                "prompt_id": canary.prompt_id,
                "kind": canary.kind.value,
                "attack": canary.attack,
                "text": canary.text,
                "scores": combined_scores(shares, {name: found[index] for name, found in scores.items()}),
                "reward": weighted(shares, rewards),
                "judge": version,
                "judges": rewards,
            }
        )
    return rows


def combined_scores(shares: Mapping[str, float], scores: Mapping[str, Sequence[ScoreRow]]) -> list[ScoreRow]:
    """Scores and masses of each aspect by the judges' shares in the reward.

    Without shares the scores are NaN, and the masses the mean over all judges. A judge's reward is aggregated over its
    own scores, so these do not aggregate to the combined reward.
    """
    rows: list[ScoreRow] = []
    for entries in zip(*scores.values(), strict=True):
        found = dict(zip(scores, entries, strict=True))
        rows.append(
            {
                "aspect": entries[0]["aspect"],
                "score": weighted(shares, {name: entry["score"] for name, entry in found.items()}),
                "mass": weighted(shares, {name: entry["mass"] for name, entry in found.items()})
                if shares
                else mean_of(entry["mass"] for entry in entries if not math.isnan(entry["mass"])),
            }
        )
    return rows
