"""The columns of the user's own rows that verifiers read."""

from collections.abc import Sequence
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import Comparison, Rewards, RewardSettings, read_columns
from dynalign_contract.supplied.files import SuppliedFile, SuppliedRow
from dynalign_trainer.verifiers.matching import last_number

_NAMED: Final = 8


def check_columns(file: SuppliedFile, rewards: Rewards) -> list[str]:
    """Make sure that every column that a verifier reads is in some row; notes say how many rows lack it.

    Raises BadInputError naming the verifier and the column.
    """
    notes = []
    read = ((index, reward, column) for index, reward in enumerate(rewards) for column in read_columns(reward))
    for index, reward, column in read:
        lacking = [row for row in file.rows if not _is_usable(row, column, reward)]
        field = f"rewards[{index}].{'column' if column == reward.column else 'columns'}"
        what, effect = _describe(column, reward), _effect(column, reward)
        if len(lacking) == len(file.rows):
            raise BadInputError(
                f"{field}: no row of {file.path} has {what}. Add it to the rows, name another column, or remove the "
                f"reward {reward.name}."
            )
        if lacking:
            notes.append(
                f"{file.path}: {len(lacking)} of {len(file.rows)} rows do not have {what}, so that {reward.name} "
                f"{effect}: {_name(lacking)}."
            )
    return notes


def _is_usable(row: SuppliedRow, column: str, reward: RewardSettings) -> bool:
    value = row.chat.columns.get(column)
    if value is None:
        return False
    return reward.comparison is not Comparison.NUMERIC or last_number(value) is not None


def _describe(column: str, reward: RewardSettings) -> str:
    kind = "a number" if reward.comparison is Comparison.NUMERIC else "a value"
    return f"{kind} in the column {column}"


def _effect(column: str, reward: RewardSettings) -> str:
    return "cannot decide answers to them" if column == reward.column else "gets answers to them without it"


def _name(rows: Sequence[SuppliedRow]) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(row.place for row in rows[:_NAMED]) + more
