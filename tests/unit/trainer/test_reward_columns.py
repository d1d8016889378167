"""Columns that verifiers read are looked for in the user's rows before a run's work begins."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import RewardSettings, columns_of_rewards
from dynalign_contract.supplied.files import read_supplied
from dynalign_trainer.preflight.reward_columns import check_columns


def notes(folder: Path, answers: list[Any], **reward: Any) -> list[str]:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "Why?", "answer": answer}) for answer in answers))
    rewards = (RewardSettings.model_validate({"name": "right", "type": "Match", "column": "answer", **reward}),)
    return check_columns(read_supplied(path, "prompts.supplied", columns_of_rewards(rewards)), rewards)


@pytest.mark.parametrize(
    ("answers", "reward", "places"),
    [
        (["a", "b"], {}, None),
        (["a", None, "b", None], {}, "2 of 4 rows do not have a value in the column answer.*: line 2, line 4"),
        (["7", "seven"], {"comparison": "Numeric"}, "1 of 2 rows do not have a number in the column answer.*: line 2"),
    ],
)
def test_rows_without_a_value_are_counted(
    tmp_path: Path, answers: list[Any], reward: dict[str, Any], places: str | None
) -> None:
    found = notes(tmp_path, answers, **reward)
    assert len(found) == (places is not None)
    if places is not None:
        assert re.search(places, found[0])


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ({"column": "result"}, r"rewards\[0\].column: no row of .* has a value in the column result"),
        ({"comparison": "Numeric"}, "has a number in the column answer"),
    ],
)
def test_a_column_that_no_row_has_is_refused(tmp_path: Path, reward: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        notes(tmp_path, ["seven", "eight"], **reward)


def test_columns_that_a_server_or_a_function_gets_are_looked_for_too(tmp_path: Path) -> None:
    service = {"type": "Http", "column": None, "endpoint": {"url": "http://rewards/"}}
    (note,) = notes(tmp_path, ["a", None], **service, columns=["answer"])
    assert "1 of 2 rows do not have a value in the column answer, so that right gets answers to them without it" in note
    with pytest.raises(BadInputError, match=r"rewards\[0\].columns: no row of .* has a value in the column tests"):
        notes(tmp_path, ["a", "b"], **service, columns=["answer", "tests"])
