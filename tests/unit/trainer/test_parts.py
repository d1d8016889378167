"""A restarted worker keeps its finished parts, and only those."""

from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.metrics import GenerateMetrics
from dynalign_contract.records import ROLLOUT, write_rows
from dynalign_trainer.generate.stage import is_complete, rollout_metrics
from dynalign_trainer.models.text_statistics import distinct_n
from dynalign_trainer.runtime.parts import Part, reuse_finished_parts, split_parts

PROMPTS = [{"prompt_id": f"p{i}"} for i in range(5)]


def rollout(prompt_id: str, candidate: int, **changes: Any) -> Any:
    return {
        "prompt_id": prompt_id,
        "candidate": candidate,
        "prompt_ids": [1, 2],
        "completion_ids": [3, 4],
        "logprobs": [-0.5, -1.5],
        "finish_reason": "stop",
        "policy": "base",
        "text": "a b",
        "messages": [{"role": "user", "content": "?"}],
    } | changes


def write(folder: Path, part: Part[Any], candidates: int = 2) -> list[Any]:
    rows = [rollout(prompt["prompt_id"], k) for prompt in part.inputs for k in range(candidates)]
    write_rows(folder / part.name, rows, ROLLOUT)
    return rows


def kept(folder: Path, parts: list[Part[Any]]) -> list[int]:
    return sorted(reuse_finished_parts(folder, parts, ROLLOUT, lambda part, rows: is_complete(part, rows, 2)))


def test_parts_are_consecutive() -> None:
    parts = split_parts(PROMPTS, 2)
    assert [[row["prompt_id"] for row in part.inputs] for part in parts] == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert split_parts([], 2) == []


def test_finished_parts_are_kept_and_the_others_made_again(tmp_path: Path) -> None:
    parts = split_parts(PROMPTS, 1)
    for part in parts:
        write(tmp_path, part)
    damaged, short, foreign = (tmp_path / parts[i].name for i in (1, 2, 3))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    write(tmp_path, parts[2], candidates=1)
    write_rows(foreign, [rollout("other", 0), rollout("other", 1)], ROLLOUT)
    assert kept(tmp_path, parts) == [0, 4]
    assert not damaged.exists()
    assert not short.exists()
    assert not foreign.exists()


def test_parts_beyond_the_work_are_removed(tmp_path: Path) -> None:
    parts = split_parts(PROMPTS, 1)
    write(tmp_path, parts[4])
    assert kept(tmp_path, parts[:2]) == []
    assert list(tmp_path.glob("part-*")) == []


def test_metrics_of_rollouts() -> None:
    rows = [rollout("p", 0), rollout("p", 1, completion_ids=[3], logprobs=[-1.0], finish_reason="length", text="")]
    assert rollout_metrics(rows) == {
        GenerateMetrics.candidates: 2,
        GenerateMetrics.tokens: 3,
        GenerateMetrics.mean_length: 1.5,
        GenerateMetrics.mean_thought_length: None,
        GenerateMetrics.unfinished_thought_share: None,
        GenerateMetrics.truncated_share: 0.5,
        GenerateMetrics.mean_logprob: -1.0,
        GenerateMetrics.distinct_2: 1.0,
        GenerateMetrics.empty_share: 0.5,
    }
    assert rollout_metrics([])[GenerateMetrics.mean_length] is None


@pytest.mark.parametrize(
    ("texts", "n", "share"), [(["a b a b"], 2, 2 / 3), (["a", "A"], 1, 0.5), (["a"], 2, None), ([], 1, None)]
)
def test_distinct_n(texts: list[str], n: int, share: float | None) -> None:
    assert distinct_n(texts, n) == (None if share is None else pytest.approx(share))
