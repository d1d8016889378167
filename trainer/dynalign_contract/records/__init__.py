"""Parquet rows that travel between stages: one typed record and table each, and reading and writing whole files.

Token ids and log-probabilities travel between stages, never text that is tokenised again (docs/design.md, "The stage
contract"); the text columns are for people.
"""

from dynalign_contract.records.batch import BATCH, BatchRow
from dynalign_contract.records.columns import ScoreRow
from dynalign_contract.records.evaluation import (
    ANSWER,
    CAPABILITY,
    COMPARISON,
    RATING,
    AnswerRow,
    CapabilityRow,
    ComparisonRow,
    RatingRow,
)
from dynalign_contract.records.judgements import CANARY, JUDGEMENT, CanaryRow, JudgementRow
from dynalign_contract.records.lengths import answer_length, unfinished_thought_share
from dynalign_contract.records.prompts import DRAFT, PROMPT, DraftRow, PromptRow
from dynalign_contract.records.rollouts import ROLLOUT, SAMPLED, RolloutRow, SampledRow
from dynalign_contract.records.table import Table, read_parts, read_rows, write_rows

__all__ = [
    "ANSWER",
    "BATCH",
    "CANARY",
    "CAPABILITY",
    "COMPARISON",
    "DRAFT",
    "JUDGEMENT",
    "PROMPT",
    "RATING",
    "ROLLOUT",
    "SAMPLED",
    "AnswerRow",
    "BatchRow",
    "CanaryRow",
    "CapabilityRow",
    "ComparisonRow",
    "DraftRow",
    "JudgementRow",
    "PromptRow",
    "RatingRow",
    "RolloutRow",
    "SampledRow",
    "ScoreRow",
    "Table",
    "answer_length",
    "read_parts",
    "read_rows",
    "unfinished_thought_share",
    "write_rows",
]
