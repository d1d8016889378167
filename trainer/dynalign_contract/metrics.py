"""Every number that a stage reports in its result: what it means, and how the numbers of shards become one.

Stages report under these names; the status, the operator's metrics, the command line and docs/reference/metrics.md
derive from the definitions. A name is unique within its stage. A family has a member for each aspect or task, named
`family/member`, so that what a user calls an aspect never meets a name of ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dynalign_contract.stages import Stage

_MEMBER: Final = "/"


class AcrossShards(StrEnum):
    """How the numbers of a stage's shards become the stage's."""

    MEAN = "mean"
    """Mean, weighted by `MetricDef.weight`."""
    SUM = "sum"
    MAX = "max"


class Unit(StrEnum):
    """What a number counts."""

    SHARE = "share, 0 to 1"
    REWARD = "reward, 0 to 1"
    COUNT = "count"
    TOKENS = "tokens"
    TOKENS_PER_SECOND = "tokens a second"
    SECONDS = "seconds"
    BYTES = "bytes"
    NATS = "nats"
    POINTS = "points"
    FLAG = "1 or 0"
    PLAIN = "number"


@dataclass(frozen=True)
class MetricDef:
    """One number of a stage, or a family of them."""

    stage: Stage
    name: str
    unit: Unit
    text: str
    across_shards: AcrossShards = AcrossShards.MEAN
    weight: str = ""
    """Metric of the same result that a mean over shards is weighted by; empty: rows of the shard's artifact."""
    exported: bool = False
    """Whether the operator serves it as `dynalign_run_NAME`."""
    member: str = ""
    """What the members of a family are, such as `aspect`; empty for a single number."""

    def of(self, member: str) -> str:
        """Name of a family's member."""
        return f"{self.name}{_MEMBER}{member}"

    def member_of(self, name: str) -> str | None:
        """The member that a metric's name names; None for a metric of another name."""
        head, separator, member = name.partition(_MEMBER)
        return member if self.member and separator and head == self.name else None

    def members(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Member -> value, for the family's metrics among `values` by name."""
        found = ((self.member_of(name), value) for name, value in values.items())
        return {member: value for member, value in found if member is not None and value is not None}


def _define(
    stage: Stage,
    definitions: Iterable[tuple[str, Unit, str]],
    across_shards: AcrossShards = AcrossShards.MEAN,
    *,
    weight: str = "",
    exported: bool = False,
) -> tuple[MetricDef, ...]:
    return tuple(
        MetricDef(stage, name, unit, text, across_shards, weight, exported=exported) for name, unit, text in definitions
    )


START_SECONDS: Final = "start_seconds"
"""The metric that every stage has."""

_EVERY_STAGE: Final = tuple(
    MetricDef(
        stage,
        START_SECONDS,
        Unit.SECONDS,
        "From the process's start to its first useful work, the slowest shard's.",
        AcrossShards.MAX,
    )
    for stage in Stage
)

_FETCH: Final = _define(
    Stage.FETCH,
    [
        ("parameters", Unit.COUNT, "Weights of the model."),
        ("bytes", Unit.BYTES, "Size of the model folder."),
    ],
)

_PROMPTS: Final = (
    *_define(
        Stage.PROMPTS,
        [
            ("duplicate_share", Unit.SHARE, "Share of written prompts that were exact duplicates."),
            (
                "near_duplicate_share",
                Unit.SHARE,
                "Share of written prompts that were near duplicates.",
            ),
        ],
        exported=True,
    ),
    *_define(
        Stage.PROMPTS,
        [
            ("prompts", Unit.COUNT, "Training prompts."),
            ("yield", Unit.SHARE, "Training prompts for each one that was wanted."),
            ("critic_mean", Unit.PLAIN, "Mean score by the critic, 0 to 9."),
            ("drafts", Unit.COUNT, "Texts that agents wrote or files supplied."),
            ("contaminated_share", Unit.SHARE, "Share of drafts that hold a text of the evaluation."),
            ("unfinished_share", Unit.SHARE, "Share of drafts that ended in the middle."),
            ("too_long_share", Unit.SHARE, "Share of drafts above the limit of tokens."),
            ("too_short_share", Unit.SHARE, "Share of drafts below the limit of characters."),
            ("low_score_share", Unit.SHARE, "Share of drafts that the critic found too bad."),
            ("mended", Unit.COUNT, "Training prompts that the reviser wrote anew."),
            ("mended_gain", Unit.PLAIN, "Mean gain of the critic's score by the reviser."),
            ("distinct_2", Unit.SHARE, "Share of pairs of words that are distinct."),
            ("facet_coverage", Unit.SHARE, "Share of the seeds' values that occur."),
            ("facet_evenness", Unit.SHARE, "How evenly the seeds' values occur; 1 is even."),
            ("requests", Unit.COUNT, "Requests to models."),
            ("tokens", Unit.TOKENS, "Tokens that models read and wrote."),
            ("supplied_share", Unit.SHARE, "Share of training prompts that the user supplied."),
            ("held_out", Unit.COUNT, "Held-out prompts."),
        ],
    ),
)

_GENERATE: Final = (
    *_define(
        Stage.GENERATE,
        [
            ("candidates", Unit.COUNT, "Answers."),
            ("tokens", Unit.TOKENS, "Tokens of all answers."),
            ("tokens_per_second", Unit.TOKENS_PER_SECOND, "Tokens written a second, by all shards together."),
        ],
        across_shards=AcrossShards.SUM,
    ),
    *_define(
        Stage.GENERATE,
        [
            ("mean_length", Unit.TOKENS, "Mean length of an answer."),
            ("truncated_share", Unit.SHARE, "Share of answers that were cut at generation.maxTokens."),
            ("distinct_2", Unit.SHARE, "Share of pairs of words that are distinct, within a shard."),
            ("empty_share", Unit.SHARE, "Share of answers without a word."),
        ],
    ),
    MetricDef(Stage.GENERATE, "mean_logprob", Unit.NATS, "Mean log-probability of a token.", weight="tokens"),
)

_JUDGED: Final = "judged"
_SCORED: Final = "scored"
"""Weights of the judge's means: its artifact has the canaries' rows too, in one shard only."""

ASPECT_REWARD: Final = MetricDef(
    Stage.JUDGE,
    "aspect_reward",
    Unit.REWARD,
    "Mean reward of an aspect, before penalties.",
    weight=_SCORED,
    member="aspect",
)

_JUDGE: Final = (
    ASPECT_REWARD,
    *_define(
        Stage.JUDGE,
        [
            (
                "canary_auc",
                Unit.SHARE,
                "Probability that a real answer outscores a canary, latest judging; 0.5 is chance.",
            ),
            ("canary_margin", Unit.PLAIN, "Mean reward of real answers minus that of canaries, latest judging."),
            ("canary_reward", Unit.REWARD, "Mean reward of canaries, latest judging, 0 to 1."),
            (
                "injection_auc",
                Unit.SHARE,
                "Probability that a real answer outscores one with orders to the judge.",
            ),
            (
                "injection_margin",
                Unit.PLAIN,
                "Mean reward of real answers minus that of orders to the judge, latest judging.",
            ),
            (
                "injection_reward",
                Unit.REWARD,
                "Mean reward of answers that give orders to the judge, latest judging, 0 to 1.",
            ),
        ],
        exported=True,
    ),
    *_define(
        Stage.JUDGE,
        [("zero_variance_share", Unit.SHARE, "Share of groups whose rewards are all equal, which teach nothing.")],
        weight=_JUDGED,
        exported=True,
    ),
    MetricDef(
        Stage.JUDGE,
        "unfit",
        Unit.FLAG,
        "1 when a gate refuses the judge and the run goes on, 0 otherwise.",
        AcrossShards.MAX,
        exported=True,
    ),
    MetricDef(Stage.JUDGE, "fallback", Unit.FLAG, "1 when the base model took the judge's place.", AcrossShards.MAX),
    *_define(
        Stage.JUDGE,
        [
            ("reward", Unit.REWARD, "Mean reward after penalties."),
            ("reward_std", Unit.REWARD, "Standard deviation of the rewards, within a shard."),
            ("group_std", Unit.REWARD, "Standard deviation of the rewards within a group, mean over groups."),
            ("mass", Unit.SHARE, "Probability that the judge gave to digits, mean over scores."),
            ("length_correlation", Unit.PLAIN, "Rank correlation of length and reward within groups."),
            ("ends_share", Unit.SHARE, "Share of scores at an end of the scale."),
            ("judge_tau", Unit.PLAIN, "Rank agreement with the base model as judge, Kendall's tau."),
            ("judge_offset", Unit.REWARD, "Mean reward minus the mean reward by the base model."),
            ("vote_std", Unit.REWARD, "Standard deviation of the votes for one score, mean over scores."),
        ],
        weight=_SCORED,
    ),
    *_define(Stage.JUDGE, [("failed_share", Unit.SHARE, "Share of answers without a reward.")], weight=_JUDGED),
    *_define(
        Stage.JUDGE,
        [
            (_JUDGED, Unit.COUNT, "Answers that were judged."),
            (_SCORED, Unit.COUNT, "Answers that got a reward."),
            ("retried", Unit.COUNT, "Scores that were asked for again."),
            ("truncated_prompts", Unit.COUNT, "Prompts that were cut before the judge saw them."),
            ("tokens_per_second", Unit.TOKENS_PER_SECOND, "Tokens read a second, by all shards together."),
        ],
        across_shards=AcrossShards.SUM,
    ),
)

_TRAIN: Final = (
    MetricDef(Stage.TRAIN, "kl", Unit.NATS, "KL divergence per token of the latest training, nats.", exported=True),
    *_define(
        Stage.TRAIN,
        [
            ("trained_steps", Unit.COUNT, "Optimiser steps."),
            ("loss", Unit.PLAIN, "Loss, mean over steps."),
            (
                "ratio_mean",
                Unit.PLAIN,
                "Probability ratio of trainer and sampler before the first step, mean.",
            ),
            ("ratio_max", Unit.PLAIN, "Largest probability ratio of trainer and sampler before the first step."),
            (
                "logprob_difference",
                Unit.NATS,
                "Log-probability of trainer minus sampler before the first step, mean.",
            ),
            ("clip_share", Unit.SHARE, "Share of tokens whose ratio was clipped, mean over steps."),
            ("grad_norm", Unit.PLAIN, "Norm of the gradient before clipping, mean over steps."),
            ("norm_change", Unit.PLAIN, "Norm of the change of the trained weights."),
            ("rejected_share", Unit.SHARE, "Share of rows that the trainer finds too unlike the sampler."),
            ("dropped_groups_share", Unit.SHARE, "Share of groups that teach nothing."),
            ("noisy_groups_share", Unit.SHARE, "Share of groups whose rewards differ no more than the votes explain."),
            ("masked_share", Unit.SHARE, "Share of answers that are left out of the loss."),
            ("loss_tokens", Unit.TOKENS, "Tokens that the loss was taken over."),
            ("tokens_per_second", Unit.TOKENS_PER_SECOND, "Tokens trained on a second."),
            ("entropy", Unit.NATS, "Entropy of the policy a token, mean over steps."),
        ],
    ),
)

TASK: Final = MetricDef(Stage.EVALUATE, "task", Unit.SHARE, "Mean score of a task.", member="task")
TASK_DELTA: Final = MetricDef(
    Stage.EVALUATE, "task_delta", Unit.PLAIN, "Mean score of a task minus the base model's.", member="task"
)

_EVALUATE: Final = (
    TASK,
    TASK_DELTA,
    *_define(
        Stage.EVALUATE,
        [
            (
                "win_rate_lc",
                Unit.SHARE,
                "Win rate against the base model at equal length of the answers, latest evaluation.",
            ),
            ("win_rate_previous", Unit.SHARE, "Win rate against the policy that the iteration began with."),
            (
                "rating",
                Unit.POINTS,
                "Bradley-Terry points above the base model, latest evaluation; 400 for odds of 10 to 1.",
            ),
        ],
        exported=True,
    ),
    *_define(
        Stage.EVALUATE,
        [
            ("win_rate", Unit.SHARE, "Share of held-out prompts on which the policy beats the base model, ties half."),
            ("win_rate_low", Unit.SHARE, "Lower end of its confidence interval."),
            ("win_rate_high", Unit.SHARE, "Upper end of its confidence interval."),
            ("win_rate_lc_low", Unit.SHARE, "Lower end of the interval of win_rate_lc."),
            ("win_rate_lc_high", Unit.SHARE, "Upper end of the interval of win_rate_lc."),
            ("win_rate_previous_low", Unit.SHARE, "Lower end of the interval of win_rate_previous."),
            ("win_rate_previous_high", Unit.SHARE, "Upper end of the interval of win_rate_previous."),
            ("preference", Unit.SHARE, "Mean preference for the policy's answers; 0.5 is none."),
            ("win_rate_live", Unit.SHARE, "Win rate by the policy as judge."),
            ("win_rate_endpoint", Unit.SHARE, "Win rate by the endpoint's model as judge."),
            ("ties", Unit.SHARE, "Share of comparisons that nobody won."),
            ("order_flips", Unit.SHARE, "Share of comparisons that the order of the answers decides."),
            ("first_position", Unit.SHARE, "Share of wins of the answer that stood first."),
            ("regressed", Unit.FLAG, "1 when the policy lost against the base model with confidence, 0 otherwise."),
            ("mean_length", Unit.TOKENS, "Mean length of the policy's answers."),
            ("mean_length_base", Unit.TOKENS, "Mean length of the base model's answers."),
            ("prompts", Unit.COUNT, "Held-out prompts that were compared."),
            ("rating_low", Unit.POINTS, "Lower end of the rating's confidence interval."),
            ("rating_high", Unit.POINTS, "Upper end of the rating's confidence interval."),
            ("judge_requests", Unit.COUNT, "Requests to the judge's endpoint."),
            ("judge_tokens", Unit.TOKENS, "Tokens that the judge's endpoint read and wrote."),
            ("capability", Unit.SHARE, "Mean score over the tasks, each of which weighs the same."),
            ("capability_low", Unit.SHARE, "Lower end of its confidence interval."),
            ("capability_high", Unit.SHARE, "Upper end of its confidence interval."),
            ("capability_delta", Unit.PLAIN, "Capability minus the base model's."),
            ("capability_delta_low", Unit.PLAIN, "Lower end of the difference's confidence interval."),
            ("capability_delta_high", Unit.PLAIN, "Upper end of the difference's confidence interval."),
            ("capability_regressed", Unit.FLAG, "1 when it dropped by more than maxDrop with confidence, 0 otherwise."),
            ("capability_items", Unit.COUNT, "Items of all tasks."),
        ],
    ),
)

_EXPORT: Final = _define(
    Stage.EXPORT,
    [
        ("parameters", Unit.COUNT, "Weights of the exported model."),
        ("bytes", Unit.BYTES, "Size of the exported folder."),
        ("relative_change", Unit.PLAIN, "Norm of the change of the trained weights by that of the weights."),
    ],
)

METRICS: Final[Mapping[tuple[Stage, str], MetricDef]] = MappingProxyType(
    {
        (definition.stage, definition.name): definition
        for definition in (
            *(*_FETCH, *_PROMPTS, *_GENERATE, *_JUDGE, *_TRAIN, *_EVALUATE, *_EXPORT),
            *_EVERY_STAGE,
        )
    }
)
"""Stage and name (of a family: its name) -> definition."""


def defined(stage: Stage, name: str) -> MetricDef:
    """The definition of a metric. Raises KeyError: who reads a number by name finds out at import that it is gone."""
    return METRICS[stage, name]


def find_definition(stage: Stage, name: str) -> MetricDef | None:
    """The definition of a metric by the name that it is reported under; None for one of another version."""
    head, separator, _ = name.partition(_MEMBER)
    found = METRICS.get((stage, head))
    return found if found is not None and bool(found.member) == bool(separator) else None
