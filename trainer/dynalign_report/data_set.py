"""A run's prompts, answers and scores as a data set: Parquet files with a card, which the library `datasets` loads.

Two tables: `answers`, every candidate with its scores and reward, and `preferences`, for each prompt the best and the
worst candidate in the format that DPO trainers read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dynalign_contract.files import atomic_path, write_bytes
from dynalign_contract.layout import RunLayout
from dynalign_contract.records import JUDGEMENT, ROLLOUT, JudgementRow, RolloutRow, read_parts
from dynalign_contract.stages import Stage
from dynalign_report.stage_facts import artifact_parts

ANSWERS: Final = "answers"
PREFERENCES: Final = "preferences"
CARD: Final = "README.md"
_TURNS: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

Row = dict[str, Any]


@dataclass(frozen=True)
class DataSetSize:
    """Rows of a data set."""

    answers: int
    preferences: int


def write_data_set(root: Path, name: str, model: str, folder: Path, *, margin: float) -> DataSetSize:
    """Write the data set of the run whose folder is `root`, a file an iteration and table, and its card.

    Preference pairs are those whose rewards differ by more than `margin`. Iterations that have not been judged are left
    out. Raises CorruptArtifactError naming a file that cannot be read, and OSError.
    """
    layout, answers, pairs = RunLayout(root), 0, 0
    for iteration in sorted(int(path.name) for path in (root / "iterations").glob("[0-9]*") if path.name.isdecimal()):
        judged = artifact_parts(layout.stage(Stage.JUDGE, iteration))
        if not judged:
            continue
        rollouts = read_parts(artifact_parts(layout.stage(Stage.GENERATE, iteration)), ROLLOUT)
        rows = list(answer_rows(iteration, rollouts, read_parts(judged, JUDGEMENT)))
        preferred = list(preference_rows(rows, margin))
        _write(folder / ANSWERS / f"iteration-{iteration:03d}.parquet", rows, _answer_schema(rows))
        _write(folder / PREFERENCES / f"iteration-{iteration:03d}.parquet", preferred, _PREFERENCE)
        answers, pairs = answers + len(rows), pairs + len(preferred)
    size = DataSetSize(answers, pairs)
    write_bytes(folder / CARD, build_card(name, model, size).encode())
    return size


def answer_rows(iteration: int, rollouts: Sequence[RolloutRow], judgements: Sequence[JudgementRow]) -> Iterator[Row]:
    """A row for every candidate; its scores are empty where it was not judged."""
    judged = {(row["prompt_id"], row["candidate"]): row for row in judgements}
    for rollout in rollouts:
        judgement = judged.get((rollout["prompt_id"], rollout["candidate"]))
        yield {
            "iteration": iteration,
            "prompt_id": rollout["prompt_id"],
            "candidate": rollout["candidate"],
            "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in rollout["messages"]],
            "answer": rollout["text"],
            "thought": rollout.get("thought", ""),
            "finish_reason": rollout["finish_reason"],
            "policy": rollout["policy"],
            "judge": "" if judgement is None else judgement["judge"],
            "reward": None if judgement is None else _number(judgement["reward"]),
            "reward_error": None if judgement is None else _number(judgement["reward_error"]),
            "scores": {}
            if judgement is None
            else {one["aspect"]: _number(one["score"]) for one in judgement["scores"]},
        }


def preference_rows(rows: Sequence[Row], margin: float) -> Iterator[Row]:
    """For each prompt the candidate of the highest reward, and that of the lowest, where they differ by more."""
    rated = [row for row in rows if row["reward"] is not None]
    for prompt_id, group in groupby(sorted(rated, key=itemgetter("prompt_id")), key=itemgetter("prompt_id")):
        candidates = sorted(group, key=lambda row: (row["reward"], row["candidate"]))
        worst, best = candidates[0], candidates[-1]
        if best["reward"] - worst["reward"] > margin:
            yield {
                "iteration": best["iteration"],
                "prompt_id": prompt_id,
                "prompt": best["prompt"],
                "chosen": [{"role": "assistant", "content": best["answer"]}],
                "rejected": [{"role": "assistant", "content": worst["answer"]}],
                "score_chosen": best["reward"],
                "score_rejected": worst["reward"],
            }


def build_card(name: str, model: str, size: DataSetSize) -> str:
    """Markdown with the YAML front matter of data set cards."""
    return f"""---
configs:
- config_name: {ANSWERS}
  data_files: {ANSWERS}/*.parquet
- config_name: {PREFERENCES}
  data_files: {PREFERENCES}/*.parquet
tags: [dynalign, preference, dpo]
---

# {name}: prompts, answers and scores

What a language model (`{model}`) wrote while it was aligned with itself by dynalign: {size.answers} answers, and
{size.preferences} pairs of a preferred and a rejected answer.

- `{ANSWERS}`: every candidate with its prompt, the judge's score of each aspect (0 to 9) and its reward (higher is
  better). A reward is empty where the judge could not decide.
- `{PREFERENCES}`: for each prompt the candidate of the highest and that of the lowest reward, as `prompt`, `chosen` and
  `rejected` in the conversational format of DPO trainers.

```python
from datasets import load_dataset

pairs = load_dataset("FOLDER", "{PREFERENCES}", split="train")
```

## Limits

Prompts and answers were written by language models, the scores given by the judge that `judge` names: often the model
itself. They are opinions of a model, not facts, and may contain whatever a model writes. Licences of the models and
of supplied prompts apply.
"""


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _answer_schema(rows: Sequence[Row]) -> pa.Schema:
    """Aspects are fields of a structure, not keys of a map, which not every reader knows."""
    aspects = dict.fromkeys(aspect for row in rows for aspect in row["scores"])
    return pa.schema(
        [
            ("iteration", pa.int32()),
            ("prompt_id", pa.string()),
            ("candidate", pa.int32()),
            ("prompt", _TURNS),
            *((name, pa.string()) for name in ("answer", "thought", "finish_reason", "policy", "judge")),
            ("reward", pa.float32()),
            ("reward_error", pa.float32()),
            ("scores", pa.struct([(aspect, pa.float32()) for aspect in aspects])),
        ]
    )


_PREFERENCE: Final = pa.schema(
    [
        ("iteration", pa.int32()),
        ("prompt_id", pa.string()),
        *((name, _TURNS) for name in ("prompt", "chosen", "rejected")),
        ("score_chosen", pa.float32()),
        ("score_rejected", pa.float32()),
    ]
)


def _write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")
