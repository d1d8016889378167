"""Parquet rows survive the volume, and damage is noticed."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.layout import part_name
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.records import (
    JUDGEMENT,
    PROMPT,
    ROLLOUT,
    SAMPLED,
    JudgementRow,
    PromptRow,
    RolloutRow,
    read_parts,
    read_rows,
    write_rows,
)
from dynalign_contract.stages import Stage

PROMPT_ROW: PromptRow = {
    "prompt_id": "p0",
    "messages": [{"role": "user", "content": "Hällo?"}],
    "source": "agents",
    "facets": {"domain": "health"},
    "critic_score": 4.5,
    "agents": {"author": "base"},
    "draft_id": "train-0-00003",
    "draft": "",
    "draft_score": 2.5,
}
JUDGEMENT_ROW: JudgementRow = {
    "prompt_id": "p0",
    "candidate": 1,
    "scores": [{"aspect": "power", "score": math.nan, "mass": 0.25}],
    "raw_reward": math.nan,
    "penalties": {"truncated": 0.5},
    "reward": math.nan,
    "reward_error": math.nan,
    "retries": 1,
    "judge": "base",
}


def a_prompt(prompt_id: str) -> PromptRow:
    row = PROMPT_ROW.copy()
    row["prompt_id"] = prompt_id
    return row


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", [PROMPT_ROW], PROMPT)
    assert read_rows(tmp_path / "x.parquet", PROMPT) == [PROMPT_ROW]


def test_a_missing_score_stays_missing(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", [JUDGEMENT_ROW], JUDGEMENT)
    (row,) = read_rows(tmp_path / "x.parquet", JUDGEMENT)
    assert math.isnan(row["reward"])
    assert math.isnan(row["scores"][0]["score"])


def test_parts_are_read_in_order(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        write_rows(tmp_path / part_name(index), [a_prompt(f"p{index}")], PROMPT)
    describe(tmp_path)
    assert [row["prompt_id"] for row in read_parts([tmp_path], PROMPT)] == ["p0", "p1", "p2"]


def describe(folder: Path) -> None:
    files = tuple(describe_file(folder, path.name) for path in folder.iterdir())
    write_manifest(folder, Manifest(stage=Stage.PROMPTS, iteration=0, config_digest="x", files=files))


def test_parts_that_no_manifest_lists_are_not_read(tmp_path: Path) -> None:
    write_rows(tmp_path / part_name(0), [PROMPT_ROW], PROMPT)
    with pytest.raises(CorruptArtifactError, match=r"has no manifest\.json"):
        read_parts([tmp_path], PROMPT)
    describe(tmp_path)
    write_rows(tmp_path / part_name(1), [a_prompt("foreign")], PROMPT)
    assert [row["prompt_id"] for row in read_parts([tmp_path], PROMPT)] == ["p0"]


def a_rollout(candidate: int, ids: list[int]) -> RolloutRow:
    return {
        "prompt_id": "p0",
        "candidate": candidate,
        "prompt_ids": [2**31 - 1, 0],
        "completion_ids": ids,
        "logprobs": [-0.5 * k for k in range(len(ids))],
        "finish_reason": "stop",
        "policy": "base",
        "text": "Hällo",
        "messages": [{"role": "user", "content": "?"}],
    }


ROLLOUT_ROWS = [a_rollout(0, []), a_rollout(1, [7]), a_rollout(2, [300, -1, 5]), a_rollout(3, [])]


@pytest.mark.parametrize("rows_a_group", [1, 3, 100])
def test_lists_of_numbers_come_back_as_python_lists(tmp_path: Path, rows_a_group: int) -> None:
    """However Parquet has divided the rows, and where a list is empty."""
    path = tmp_path / "x.parquet"
    write_rows(path, ROLLOUT_ROWS, ROLLOUT)
    pq.write_table(pq.read_table(path), path, row_group_size=rows_a_group)
    rows = read_rows(path, ROLLOUT)
    assert rows == ROLLOUT_ROWS
    assert {type(value) for row in rows for value in row["completion_ids"]} == {int}
    assert {type(value) for row in rows for value in row["logprobs"]} == {float}


def test_a_missing_number_or_list_stays_missing(tmp_path: Path) -> None:
    """Nobody here writes one, and whoever reads one is told where it is used."""
    path = tmp_path / "x.parquet"
    write_rows(path, ROLLOUT_ROWS, ROLLOUT)
    damaged = pq.read_table(path)
    for name, values in (("completion_ids", [[1, None], [], [], []]), ("logprobs", [None, [0.5], [], []])):
        index = damaged.schema.get_field_index(name)
        damaged = damaged.set_column(index, name, pa.array(values, damaged.schema.field(name).type))
    pq.write_table(damaged, path)
    rows = read_rows(path, ROLLOUT)
    assert [rows[0]["completion_ids"], rows[0]["logprobs"], rows[1]["logprobs"]] == [[1, None], None, [0.5]]


def test_training_reads_what_generate_writes_without_what_is_for_people(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", ROLLOUT_ROWS, ROLLOUT)
    assert read_rows(tmp_path / "x.parquet", SAMPLED) == [
        {name: value for name, value in row.items() if name not in ("text", "messages")} for row in ROLLOUT_ROWS
    ]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.parquet"
    write_rows(tmp_path / "real.parquet", [PROMPT_ROW], PROMPT)
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to("real.parquet"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(CorruptArtifactError, match=r"x\.parquet"):
        read_rows(path, PROMPT)


def test_a_row_without_a_column_is_a_programming_error(tmp_path: Path) -> None:
    lacking: Any = {name: value for name, value in PROMPT_ROW.items() if name != "source"}
    with pytest.raises(KeyError, match="source"):
        write_rows(tmp_path / "x.parquet", [lacking], PROMPT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_a_cut_file_is_refused_and_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.parquet"
    write_rows(path, [PROMPT_ROW], PROMPT)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptArtifactError, match=r"x\.parquet"):
        read_rows(path, PROMPT)


def test_judgements_of_an_earlier_version_are_refused_with_a_remedy(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", [JUDGEMENT_ROW], JUDGEMENT)
    pq.write_table(pq.read_table(tmp_path / "x.parquet").drop_columns(["reward_error"]), tmp_path / "x.parquet")
    with pytest.raises(CorruptArtifactError, match=r"lacks the columns reward_error: .* Remove the folder"):
        read_rows(tmp_path / "x.parquet", JUDGEMENT)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.parquet", [PROMPT_ROW], PROMPT)
    with pytest.raises(CorruptArtifactError, match="raw_reward"):
        read_rows(tmp_path / "x.parquet", JUDGEMENT)


def test_reading_leaves_no_thread_behind(tmp_path: Path) -> None:
    """A thread of Arrow's that gives a Python file back while the interpreter ends aborts the whole process."""
    write_rows(tmp_path / "x.parquet", [PROMPT_ROW], PROMPT)
    pq.write_table(pa.table({"prompt": ["Who are you?"]}), tmp_path / "supplied.parquet")
    program = """
import os, sys
from pathlib import Path
from dynalign_contract.records import PROMPT, read_rows
from dynalign_contract.supplied.files import read_supplied
before = sorted(os.listdir("/proc/self/task"))
rows = read_rows(Path(sys.argv[1]) / "x.parquet", PROMPT)
supplied = read_supplied(Path(sys.argv[1]) / "supplied.parquet", "spec.prompts").rows
print(len(rows), len(supplied), sorted(os.listdir("/proc/self/task")) == before)
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True)
    assert result.stdout.split() == ["1", "1", "True"]
