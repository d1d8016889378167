"""Lengths of answers, apart from the thoughts before them."""

from collections.abc import Sequence

from dynalign_contract.records.evaluation import AnswerRow
from dynalign_contract.records.rollouts import RolloutRow


def answer_length(row: RolloutRow | AnswerRow) -> int:
    """Tokens of a row's answer, without the thought before it."""
    return len(row["completion_ids"]) - row.get("thought_tokens", 0)


def unfinished_thought_share(rows: Sequence[RolloutRow] | Sequence[AnswerRow]) -> float | None:
    """Share of rows whose answer is empty because their thought never ended; None where the model does not think."""
    thinks = any("thought_tokens" in row for row in rows)
    return sum(answer_length(row) == 0 for row in rows) / len(rows) if thinks else None
