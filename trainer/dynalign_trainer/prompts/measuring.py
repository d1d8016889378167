"""What a set of prompts looks like in numbers. Pure."""

import math
from collections.abc import Mapping, Sequence

from dynalign_contract.config import PromptsParams
from dynalign_contract.metrics import MetricValues, PromptsMetrics
from dynalign_contract.records import PromptRow
from dynalign_trainer.models.text_statistics import distinct_n
from dynalign_trainer.prompts.choosing import evenness
from dynalign_trainer.prompts.drafts import Actor, Drop, Tally
from dynalign_trainer.prompts.seeds import facet_coverage
from dynalign_trainer.prompts.wording import own_words


def measure(
    rows: Sequence[PromptRow], tally: Tally, *, facets: Mapping[str, Sequence[str]], wanted: int
) -> MetricValues[PromptsParams]:
    """Yield, quality, diversity and cost of PROMPT rows, the most important first; shares are of all drafts."""
    scores = [row["critic_score"] for row in rows if math.isfinite(row["critic_score"])]
    seeds = [row["facets"] for row in rows if row["source"] == "agents"]
    gains = [row["critic_score"] - row["draft_score"] for row in rows if math.isfinite(row["draft_score"])]
    return {
        PromptsMetrics.prompts: len(rows),
        PromptsMetrics.yield_: len(rows) / wanted,
        PromptsMetrics.critic_mean: _mean(scores),
        PromptsMetrics.drafts: tally.drafts,
        PromptsMetrics.duplicate_share: tally.share(Drop.DUPLICATE),
        PromptsMetrics.near_duplicate_share: tally.share(Drop.NEAR_DUPLICATE),
        PromptsMetrics.contaminated_share: tally.share(Drop.CONTAMINATED),
        PromptsMetrics.unfinished_share: tally.share(Drop.UNFINISHED),
        PromptsMetrics.too_long_share: tally.share(Drop.LONG),
        PromptsMetrics.too_short_share: tally.share(Drop.SHORT),
        PromptsMetrics.low_score_share: tally.share(Drop.LOW_SCORE),
        PromptsMetrics.revised: len(gains),
        PromptsMetrics.revision_gain: _mean(gains),
        PromptsMetrics.distinct_2: distinct_n((own_words(row["messages"]) for row in rows), 2),
        PromptsMetrics.facet_coverage: facet_coverage(facets, seeds) if seeds else None,
        PromptsMetrics.facet_evenness: evenness(facets, seeds) if seeds else None,
        PromptsMetrics.requests: tally.requests,
        PromptsMetrics.tokens: tally.tokens,
        PromptsMetrics.supplied_share: tally.of(Actor.SUPPLIED).kept / len(rows) if rows else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
