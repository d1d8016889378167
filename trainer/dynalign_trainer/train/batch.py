"""Rows that training consumes, from rollouts and judgements: pure and deterministic (docs/method.md, "Batch")."""

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from dynalign_contract.errors import BadInputError
from dynalign_contract.records import BatchRow, JudgementRow, SampledRow
from dynalign_contract.settings import TrainingSettings
from dynalign_trainer.train.advantages import group_advantages, unbiased_std

Key = tuple[str, int]
"""(prompt_id, candidate)."""


class Keyed(TypedDict):
    """A row about one candidate."""

    prompt_id: str
    candidate: int


K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True)
class Batch:
    """What one iteration trains on."""

    rows: tuple[BatchRow, ...]
    """Rows of `records.BATCH`, ordered by step, then group, then candidate."""
    group_size: int
    """Candidates of the largest group, G."""
    groups: int
    """Groups that were judged."""
    dropped_groups: int
    """Groups that teach nothing: no spread of rewards beyond the floor, or no candidate that may carry loss."""
    noisy_groups: int | None
    """Dropped groups whose spread is more than `minGroupStd`, but could be the judge's votes alone.

    None where no reward's standard error is known, or no noise floor is set.
    """
    epochs: int = 1
    """Times that training takes every row."""

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return 1 + max((row["step"] for row in self.rows), default=-1)

    @property
    def loss_tokens(self) -> tuple[int, ...]:
        """Tokens that carry loss, for each step of an epoch, over all ranks: the divisor of `TokenMean`."""
        counts = [0] * self.steps
        for row in self.rows:
            if not row["masked"]:
                counts[row["step"]] += len(row["completion_ids"])
        return tuple(counts)

    @property
    def dropped_share(self) -> float:
        """Share of the groups that was dropped."""
        return self.dropped_groups / self.groups

    @property
    def noisy_share(self) -> float | None:
        """Share of the groups that was dropped for the judge's noise; None where that is not measured."""
        return None if self.noisy_groups is None else self.noisy_groups / self.groups

    @property
    def masked_share(self) -> float | None:
        """Share of the kept rows that carries no loss; None when no row was kept."""
        return sum(row["masked"] for row in self.rows) / len(self.rows) if self.rows else None


def build_batch(
    rollouts: Sequence[SampledRow],
    judgements: Sequence[JudgementRow],
    settings: TrainingSettings,
    *,
    policy: str,
    seed: int,
) -> Batch:
    """Join, compute advantages, drop groups without spread, mask rows and assign groups to optimiser steps.

    A group's rewards must have a standard deviation above `minGroupStd` and, where there were votes, above `noiseFloor`
    times their mean standard error (`reward_error`). Groups are shuffled by the seed and cut into steps of
    `promptsPerStep`; the last step takes what is left, so that no group is lost. The batch's deviation (`scale: Batch`)
    is that of every scored reward, dropped groups included.
    Raises BadInputError when rollouts and judgements do not belong together, when the rollouts were sampled by a
    policy other than `policy`, or when no candidate was scored.
    """
    judged = join_judgements(rollouts, judgements)
    rewards = {key: _number(row["reward"]) for key, row in judged.items()}
    if all(math.isnan(r) for r in rewards.values()):
        raise BadInputError(
            f"the judgements give no reward to any of the {len(rewards)} candidates (every reward is NaN). Look at the "
            "judge's `mass` column: a smaller judging.minMass, or a judge that answers with a digit, is needed."
        )
    for row in rollouts:
        _check_rollout(row, policy)
    groups = _grouped(rollouts)
    batch_std = unbiased_std(list(rewards.values()))
    kept: list[list[BatchRow]] = []
    noisy: list[bool] = []
    for group in groups:
        scores = [rewards[_key(row)] for row in group]
        spread = unbiased_std(scores)
        noise = _noise([judged[_key(row)] for row in group], settings.noise_floor)
        if not math.isnan(noise):
            noisy.append(settings.min_group_std < spread <= noise)
        if spread <= settings.min_group_std or spread <= noise:
            continue
        advantages = group_advantages(scores, settings.scale, batch_std)
        rows = [_batch_row(row, r, a, settings) for row, r, a in zip(group, scores, advantages, strict=True)]
        if not all(row["masked"] for row in rows):
            kept.append(rows)
    random.Random(seed).shuffle(kept)  # noqa: S311 - an order, not a secret
    return Batch(
        rows=tuple(_in_step(row, i // settings.prompts_per_step) for i, rows in enumerate(kept) for row in rows),
        group_size=max(len(group) for group in groups),
        groups=len(groups),
        dropped_groups=len(groups) - len(kept),
        noisy_groups=sum(noisy) if noisy else None,
        epochs=settings.epochs,
    )


def join_judgements(rollouts: Iterable[SampledRow], judgements: Iterable[JudgementRow]) -> dict[Key, JudgementRow]:
    """The judgement of every candidate, in the order of the rollouts.

    Raises BadInputError unless rollouts and judgements name the same candidates, each exactly once.
    """
    sampled = _unique(rollouts, "rollouts")
    judged = _unique(judgements, "judgements")
    if sampled.keys() != judged.keys():
        example = min(sampled.keys() ^ judged.keys())
        where = "rollouts only" if example in sampled else "judgements only"
        raise BadInputError(
            f"rollouts and judgements do not belong together: {len(sampled.keys() ^ judged.keys())} candidates are in "
            f"one of them only, for example prompt {example[0]!r} candidate {example[1]} ({where}). Remove the "
            "iteration's judgements folder to have the judge run again."
        )
    if not sampled:
        raise BadInputError("the rollouts hold no candidate, so there is nothing to train on. Run generate again.")
    return {key: judged[key] for key in sampled}


def _in_step(row: BatchRow, step: int) -> BatchRow:
    return {**row, "step": step}


def _number(value: float | None) -> float:
    """A nullable column's value, NaN where there is none."""
    return math.nan if value is None else float(value)


def _noise(judgements: Iterable[JudgementRow], floor: float) -> float:
    """Deviation of a group's rewards up to which the votes alone may explain it; NaN where that is off or unknown."""
    errors = [error for error in (_number(row["reward_error"]) for row in judgements) if not math.isnan(error)]
    return floor * statistics.fmean(errors) if errors and floor > 0 else math.nan


def _key(row: Keyed) -> Key:
    return row["prompt_id"], row["candidate"]


def _unique(rows: Iterable[K], name: str) -> dict[Key, K]:
    found: dict[Key, K] = {}
    for row in rows:
        if _key(row) in found:
            raise BadInputError(
                f"the {name} name prompt {row['prompt_id']!r} candidate {row['candidate']} twice. Remove the "
                f"iteration's {name} folder to have its stage run again."
            )
        found[_key(row)] = row
    return found


def _grouped(rollouts: Iterable[SampledRow]) -> list[list[SampledRow]]:
    groups: dict[str, list[SampledRow]] = {}
    for row in sorted(rollouts, key=_key):
        groups.setdefault(row["prompt_id"], []).append(row)
    return list(groups.values())


def _check_rollout(row: SampledRow, policy: str) -> None:
    where = f"prompt {row['prompt_id']!r} candidate {row['candidate']}"
    if row["policy"] != policy:
        raise BadInputError(
            f"the rollout of {where} was sampled by policy {row['policy']!r}, but training starts from {policy!r}. "
            "Remove the iteration's rollouts folder to have generate run again with the right policy."
        )
    if len(row["logprobs"]) != len(row["completion_ids"]):
        raise BadInputError(
            f"the rollout of {where} has {len(row['completion_ids'])} completion tokens but {len(row['logprobs'])} "
            "log-probabilities. Remove the iteration's rollouts folder to have generate run again."
        )
    if not row["prompt_ids"]:
        raise BadInputError(f"the rollout of {where} has an empty prompt. Remove the rollouts folder and run again.")


def _batch_row(row: SampledRow, reward: float, advantage: float, settings: TrainingSettings) -> BatchRow:
    """A row of `records.BATCH` of step 0."""
    unusable = not row["completion_ids"] or not all(math.isfinite(value) for value in row["logprobs"])
    truncated = settings.mask_truncated and row["finish_reason"] == "length"
    return {
        "step": 0,
        "prompt_id": row["prompt_id"],
        "candidate": row["candidate"],
        "prompt_ids": row["prompt_ids"],
        "completion_ids": row["completion_ids"],
        "logprobs": row["logprobs"],
        "reward": reward,
        "advantage": advantage,
        "masked": math.isnan(reward) or truncated or unusable,
    }
