"""What the stage generate reports."""

from typing import Final

from dynalign_contract.config import GenerateParams
from dynalign_contract.metrics.definition import TOKENS_PER_SECOND_EXPORT, AcrossShards, MetricDef, StageMetrics, Unit
from dynalign_contract.stages import Stage

_Metric: Final = MetricDef[GenerateParams]


class GenerateMetrics(StageMetrics):
    """Metrics of the stage generate."""

    stage = Stage.GENERATE
    candidates = _Metric(Unit.COUNT, "Answers.", AcrossShards.SUM)
    tokens = _Metric(Unit.TOKENS, "Tokens of all answers and thoughts.", AcrossShards.SUM)
    mean_length = _Metric(Unit.TOKENS, "Mean length of an answer, without the thought before it.")
    mean_thought_length = _Metric(Unit.TOKENS, "Mean length of the thought before an answer.")
    unfinished_thought_share = _Metric(
        Unit.SHARE, "Share of answers that are empty because they never left their thought."
    )
    truncated_share = _Metric(Unit.SHARE, "Share of answers that were cut at generation.maxTokens.")
    mean_logprob = _Metric(Unit.NATS, "Mean log-probability of a token.", weight=tokens)
    distinct_2 = _Metric(Unit.SHARE, "Share of pairs of words that are distinct, within a shard.")
    empty_share = _Metric(Unit.SHARE, "Share of answers without a word.")
    tokens_per_second = _Metric(
        Unit.TOKENS_PER_SECOND,
        "Tokens written a second, by all shards together.",
        AcrossShards.SUM,
        export=TOKENS_PER_SECOND_EXPORT,
    )
