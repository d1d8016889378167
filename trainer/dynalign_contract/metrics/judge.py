"""What the stage judge reports about its rewards and about the judge."""

from typing import Final

from dynalign_contract.config import JudgeParams
from dynalign_contract.metrics.definition import (
    TOKENS_PER_SECOND_EXPORT,
    AcrossShards,
    Export,
    MetricDef,
    MetricFamily,
    StageMetrics,
    Unit,
)
from dynalign_contract.stages import Stage

_Metric: Final = MetricDef[JudgeParams]


class JudgeMetrics(StageMetrics):
    """Metrics of the stage judge.

    Means are weighted by answers, not by rows: the artifact of one shard has the rows of the canaries too.
    """

    stage = Stage.JUDGE
    judged = _Metric(Unit.COUNT, "Answers that were judged.", AcrossShards.SUM)
    scored = _Metric(Unit.COUNT, "Answers that got a reward.", AcrossShards.SUM)
    reward = _Metric(
        Unit.REWARD,
        "Mean reward of the answers to the iteration's own training prompts, after penalties.",
        weight=scored,
        export=Export(),
    )
    aspect_reward = MetricFamily(
        "aspect",
        _Metric(
            Unit.REWARD,
            "Mean reward of an aspect, before penalties.",
            weight=scored,
            export=Export("reward_aspect"),
        ),
    )
    verifier_reward = MetricFamily(
        "verifier",
        _Metric(Unit.PLAIN, "Mean value of a verifier.", weight=judged, export=Export("reward_verifier")),
    )
    verifier_failed_share = MetricFamily(
        "verifier", _Metric(Unit.SHARE, "Share of answers that a verifier could not decide.", weight=judged)
    )
    judge_reward = MetricFamily(
        "judge",
        _Metric(
            Unit.REWARD,
            "Mean reward by one of several judges, before verifiers and penalties.",
            weight=judged,
            export=Export("reward_judge"),
        ),
    )
    judge_failed_share = MetricFamily(
        "judge", _Metric(Unit.SHARE, "Share of answers that one of several judges gave no reward.", weight=judged)
    )
    judge_left_out = MetricFamily(
        "judge",
        _Metric(
            Unit.SHARE,
            "Share of answers in whose shard a gate refused a judge, so that it was left out.",
            weight=judged,
            export=Export(),
        ),
    )
    judge_canary_auc = MetricFamily(
        "judge", _Metric(Unit.SHARE, "`canary_auc` of one of several judges.", export=Export())
    )
    judge_injection_auc = MetricFamily("judge", _Metric(Unit.SHARE, "`injection_auc` of one of several judges."))
    judge_agreement = MetricFamily(
        "judge",
        _Metric(
            Unit.PLAIN,
            "Rank agreement of one of several judges with the mean reward of the others, Kendall's tau.",
            weight=judged,
            export=Export(),
        ),
    )
    judge_requests = MetricFamily(
        "judge", _Metric(Unit.COUNT, "Requests to a judge's endpoint, repeated ones included.", AcrossShards.SUM)
    )
    judge_tokens = MetricFamily(
        "judge", _Metric(Unit.TOKENS, "Tokens that a judge's endpoint read and wrote.", AcrossShards.SUM)
    )
    judge_cached_tokens = MetricFamily(
        "judge",
        _Metric(Unit.TOKENS, "Tokens of its prompts that a judge's endpoint found in its cache.", AcrossShards.SUM),
    )
    disagreement = _Metric(
        Unit.REWARD,
        "Standard deviation of several judges' rewards for an answer, each judge's mean over the group subtracted, "
        "mean over answers.",
        weight=scored,
        export=Export(),
    )
    reward_std = _Metric(Unit.REWARD, "Standard deviation of the rewards, within a shard.", weight=scored)
    group_std = _Metric(
        Unit.REWARD, "Standard deviation of the rewards within a group, mean over groups.", weight=scored
    )
    zero_variance_share = _Metric(
        Unit.SHARE, "Share of groups whose rewards are all equal, which teach nothing.", weight=judged, export=Export()
    )
    failed_share = _Metric(Unit.SHARE, "Share of answers without a reward.", weight=judged)
    retried = _Metric(Unit.COUNT, "Scores that were asked for again.", AcrossShards.SUM)
    mass = _Metric(Unit.SHARE, "Probability that the judge gave to digits, mean over scores.", weight=scored)
    canary_margin = _Metric(Unit.PLAIN, "Mean reward of real answers minus that of canaries.", export=Export())
    canary_auc = _Metric(
        Unit.SHARE, "Probability that a real answer outscores a canary; 0.5 is chance.", export=Export()
    )
    canary_reward = _Metric(Unit.REWARD, "Mean reward of canaries.", export=Export())
    injection_margin = _Metric(
        Unit.PLAIN,
        "Mean reward of real answers minus that of answers that give orders to the judge.",
        export=Export(),
    )
    injection_auc = _Metric(
        Unit.SHARE, "Probability that a real answer outscores one that gives orders to the judge.", export=Export()
    )
    injection_reward = _Metric(Unit.REWARD, "Mean reward of answers that give orders to the judge.", export=Export())
    length_correlation = _Metric(Unit.PLAIN, "Rank correlation of length and reward within groups.", weight=scored)
    ends_share = _Metric(Unit.SHARE, "Share of scores at an end of the scale.", weight=scored)
    judge_tau = _Metric(Unit.PLAIN, "Rank agreement with the base model as judge, Kendall's tau.", weight=scored)
    judge_offset = _Metric(Unit.REWARD, "Mean reward minus the mean reward by the base model.", weight=scored)
    fallback = _Metric(Unit.FLAG, "1 if the base model judged in place of the configured judge.", AcrossShards.MAX)
    unfit = _Metric(
        Unit.FLAG, "1 if a gate refuses the judge and the run goes on, 0 otherwise.", AcrossShards.MAX, export=Export()
    )
    truncated_prompts = _Metric(Unit.COUNT, "Prompts that were cut to fit the judge's window.", AcrossShards.SUM)
    vote_std = _Metric(Unit.REWARD, "Standard deviation of the votes for one score, mean over scores.", weight=scored)
    tokens_per_second = _Metric(
        Unit.TOKENS_PER_SECOND,
        "Tokens read a second, by all shards together.",
        AcrossShards.SUM,
        export=TOKENS_PER_SECOND_EXPORT,
    )
