"""What a set of prompts looks like in numbers. Pure."""

import math
from collections.abc import Mapping, Sequence

from dynalign_contract.records import Row
from dynalign_trainer.models.text_statistics import distinct_n
from dynalign_trainer.prompts.choosing import evenness
from dynalign_trainer.prompts.drafts import Drop, Hand, Tally
from dynalign_trainer.prompts.seeds import facet_coverage
from dynalign_trainer.prompts.wording import own_words


def measure(
    rows: Sequence[Row], tally: Tally, *, facets: Mapping[str, Sequence[str]], wanted: int
) -> dict[str, float | None]:
    """Yield, quality, diversity and cost of PROMPT rows, the most important first; shares are of all drafts."""
    scores = [row["critic_score"] for row in rows if math.isfinite(row["critic_score"])]
    seeds = [row["facets"] for row in rows if row["source"] == "agents"]
    gains = [row["critic_score"] - row["draft_score"] for row in rows if math.isfinite(row["draft_score"])]
    return {
        "prompts": len(rows),
        "yield": len(rows) / wanted,
        "critic_mean": _mean(scores),
        "drafts": tally.drafts,
        "duplicate_share": tally.share(Drop.DUPLICATE),
        "near_duplicate_share": tally.share(Drop.NEAR_DUPLICATE),
        "contaminated_share": tally.share(Drop.CONTAMINATED),
        "unfinished_share": tally.share(Drop.UNFINISHED),
        "too_long_share": tally.share(Drop.LONG),
        "too_short_share": tally.share(Drop.SHORT),
        "low_score_share": tally.share(Drop.LOW_SCORE),
        "mended": len(gains),
        "mended_gain": _mean(gains),
        "distinct_2": distinct_n((own_words(row["messages"]) for row in rows), 2),
        "facet_coverage": facet_coverage(facets, seeds) if seeds else None,
        "facet_evenness": evenness(facets, seeds) if seeds else None,
        "requests": tally.requests,
        "tokens": tally.tokens,
        "supplied_share": tally.of(Hand.SUPPLIED).kept / len(rows) if rows else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
