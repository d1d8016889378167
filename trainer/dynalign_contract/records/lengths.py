"""Lengths of answers, apart from the thoughts before them."""

from dynalign_contract.records.evaluation import AnswerRow
from dynalign_contract.records.rollouts import RolloutRow


def answer_length(row: RolloutRow | AnswerRow) -> int:
    """Tokens of a row's answer, without the thought before it."""
    return len(row["completion_ids"]) - row.get("thought_tokens", 0)
