"""The columns of the user's own rows that verifiers read."""

from collections.abc import Sequence
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import Comparison, Rewards, RewardSettings
from dynalign_contract.supplied.files import SuppliedFile, SuppliedRow
from dynalign_trainer.verifiers.matching import last_number

_NAMED: Final = 8


def check_columns(file: SuppliedFile, rewards: Rewards) -> list[str]:
    """Make sure that every column that a verifier reads is in some row; notes say how many rows lack it.

    Raises BadInputError naming the verifier and the column.
    """
    notes = []
    for index, reward in enumerate(rewards):
        if reward.column is None:
            continue
        lacking = [row for row in file.rows if not _is_usable(row, reward.column, reward)]
        field, what = f"rewards[{index}].column", _describe(reward)
        if len(lacking) == len(file.rows):
            raise BadInputError(
                f"{field}: no row of {file.path} has {what}. Add it to the rows, name another column, or remove the "
                f"reward {reward.name}."
            )
        if lacking:
            notes.append(
                f"{file.path}: {len(lacking)} of {len(file.rows)} rows do not have {what}, so that {reward.name} "
                f"cannot decide answers to them: {_name(lacking)}."
            )
    return notes


def _is_usable(row: SuppliedRow, column: str, reward: RewardSettings) -> bool:
    value = row.chat.columns.get(column)
    if value is None:
        return False
    return reward.comparison is not Comparison.NUMERIC or last_number(value) is not None


def _describe(reward: RewardSettings) -> str:
    kind = "a number" if reward.comparison is Comparison.NUMERIC else "a value"
    return f"{kind} in the column {reward.column}"


def _name(rows: Sequence[SuppliedRow]) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(row.place for row in rows[:_NAMED]) + more
