"""What the stage prompts reports."""

from typing import Final

from dynalign_contract.config import PromptsParams
from dynalign_contract.metrics.definition import Export, MetricDef, StageMetrics, Unit
from dynalign_contract.stages import Stage

_Metric: Final = MetricDef[PromptsParams]


class PromptsMetrics(StageMetrics):
    """Metrics of the stage prompts."""

    stage = Stage.PROMPTS
    prompts = _Metric(Unit.COUNT, "Training prompts.")
    yield_ = _Metric(Unit.SHARE, "Training prompts divided by the number that was wanted.")
    critic_mean = _Metric(Unit.PLAIN, "Mean score by the critic, 0 to 9.")
    drafts = _Metric(Unit.COUNT, "Texts that agents wrote or files supplied.")
    duplicate_share = _Metric(Unit.SHARE, "Share of drafts that were exact duplicates.", export=Export())
    near_duplicate_share = _Metric(Unit.SHARE, "Share of drafts that were near duplicates.", export=Export())
    contaminated_share = _Metric(Unit.SHARE, "Share of drafts that hold a text of the evaluation.")
    unfinished_share = _Metric(Unit.SHARE, "Share of drafts that were cut off before their end.")
    too_long_share = _Metric(Unit.SHARE, "Share of drafts above the limit of tokens.")
    too_short_share = _Metric(Unit.SHARE, "Share of drafts below the limit of characters.")
    low_score_share = _Metric(Unit.SHARE, "Share of drafts whose score by the critic was too low.")
    revised = _Metric(Unit.COUNT, "Training prompts that the reviser has rewritten.")
    revision_gain = _Metric(Unit.PLAIN, "Mean gain of the critic's score by the reviser.")
    distinct_2 = _Metric(Unit.SHARE, "Share of pairs of words that are distinct.")
    facet_coverage = _Metric(Unit.SHARE, "Share of the seeds' values that occur.")
    facet_evenness = _Metric(Unit.SHARE, "Evenness of the seeds' values; 1 is even.")
    requests = _Metric(Unit.COUNT, "Requests to models.")
    tokens = _Metric(Unit.TOKENS, "Tokens that models read and wrote.")
    supplied_share = _Metric(Unit.SHARE, "Share of training prompts that the user supplied.")
    held_out = _Metric(Unit.COUNT, "Held-out prompts.")
