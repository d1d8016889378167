"""Parquet rows that travel between stages: schemas, and reading and writing whole files.

Token ids and log-probabilities travel between stages, never text that is tokenised again (docs/design.md, "The stage
contract"); the text columns are for people.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import atomic_path, open_plain
from dynalign_contract.layout import PART_PREFIX
from dynalign_contract.manifest import listed_names

Row = dict[str, Any]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCORES = pa.list_(
    pa.struct(
        [
            ("aspect", pa.string()),
            ("score", pa.float32()),  # expected digit, 0 to 9; NaN when the judge gave none
            ("mass", pa.float32()),  # probability that the next token was a digit at all, 0 to 1
        ]
    )
)

PROMPT: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", _MESSAGES),
        ("source", pa.string()),  # "agents" or "supplied"
        ("facets", pa.map_(pa.string(), pa.string())),  # seed facets: domain, persona, tension, difficulty, format
        ("critic_score", pa.float32()),  # expected digit, 0 to 9; NaN for supplied prompts
        ("agents", pa.map_(pa.string(), pa.string())),  # role -> version of the model that played it
        ("draft_id", pa.string()),  # row of drafts.parquet that it comes from; empty for supplied prompts
        ("draft", pa.string()),  # the author's text, where the reviser has mended it; empty otherwise
        ("draft_score", pa.float32()),  # the critic's score of that text; NaN where nothing was mended
    ]
)

DRAFT: Final = pa.schema(
    [
        ("draft_id", pa.string()),  # purpose, round and number: "train-0-00017"
        ("facets", pa.map_(pa.string(), pa.string())),
        ("text", pa.string()),  # as the author wrote it, cleaned; empty where nothing was left
        ("score", pa.float32()),  # the critic's; NaN where the draft did not come so far
        ("mended", pa.string()),  # as the reviser wrote it; empty where nothing was mended
        ("mended_score", pa.float32()),
        ("agent", pa.string()),  # whose word was the last: author, curator, critic or reviser
        ("outcome", pa.string()),  # "kept", or why it was dropped
        ("prompt_id", pa.string()),  # of the prompt that it became; empty otherwise
    ]
)

ROLLOUT: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("candidate", pa.int32()),  # 0 .. G-1
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),  # the final EOS included when the model wrote one
        ("logprobs", pa.list_(pa.float32())),  # one a completion token, of the distribution that was sampled from
        ("finish_reason", pa.string()),  # "stop" or "length"
        ("policy", pa.string()),  # version of the sampling policy: "base" or "iteration-003"
        ("text", pa.string()),
        ("messages", _MESSAGES),
    ]
)

JUDGEMENT: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("candidate", pa.int32()),
        ("scores", _SCORES),  # one an aspect, in the objective's order
        ("raw_reward", pa.float32()),  # aggregate over the aspects, 0 to 1, before penalties; NaN when one is missing
        ("penalties", pa.map_(pa.string(), pa.float32())),  # name -> what was taken off
        ("reward", pa.float32()),  # raw_reward minus penalties; NaN is dropped by training, never read as 0
        ("reward_error", pa.float32()),  # standard error of raw_reward by the votes' spread; NaN for fewer than two
        ("retries", pa.int32()),
        ("judge", pa.string()),  # version of the judging model
    ]
)

CANARY: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("kind", pa.string()),  # "empty", "master_key", "shuffled", ...
        ("attack", pa.string()),  # for "injected": its id in the collection; empty otherwise
        ("text", pa.string()),
        ("scores", _SCORES),
        ("reward", pa.float32()),
        ("judge", pa.string()),
    ]
)

BATCH: Final = pa.schema(
    [
        ("step", pa.int32()),  # optimiser step that consumes the row
        ("prompt_id", pa.string()),
        ("candidate", pa.int32()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("reward", pa.float32()),
        ("advantage", pa.float32()),
        ("masked", pa.bool_()),  # carries no loss: truncated, unscored, or filler that completes a step
    ]
)

ANSWER: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("policy", pa.string()),
        ("messages", _MESSAGES),
        ("completion_ids", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("text", pa.string()),
    ]
)

COMPARISON: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("policy", pa.string()),  # version of the candidate: "iteration-003"
        ("opponent", pa.string()),  # "base" or "previous"
        ("opponent_policy", pa.string()),  # version of the opponent
        ("judge", pa.string()),
        ("method", pa.string()),  # "Pairwise" or "Pointwise"
        ("first", pa.float32()),  # the judge's preference for the candidate, 0 to 1, when it is shown first
        ("second", pa.float32()),  # the same when it is shown second; equal to `first` for Pointwise
        ("outcome", pa.float32()),  # 1 win, 0.5 tie or inconsistent, 0 loss; NaN when the judge gave no answer
        ("length_difference", pa.int32()),  # tokens of the candidate minus tokens of the opponent
    ]
)

RATING: Final = pa.schema(
    [
        ("policy", pa.string()),
        ("points", pa.float64()),  # 400 * log10 of the odds of beating the base model, which has 0
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("comparisons", pa.int64()),  # that it took part in
    ]
)

CAPABILITY: Final = pa.schema(
    [
        ("policy", pa.string()),  # "base" or "iteration-003"
        ("task", pa.string()),  # as the run file names it
        ("item", pa.string()),  # "<task of the harness>/<number of its document>"
        ("request", pa.string()),  # digest of everything that the model was asked for this item
        ("metric", pa.string()),  # the harness's name of the score
        ("score", pa.float64()),  # more is better; 0 or 1 for most tasks
        ("response", pa.string()),  # what the model wrote, or its log-likelihoods, for people
    ]
)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write one Parquet file atomically. Every row has exactly the schema's columns; raises KeyError otherwise."""
    columns = {name: [row[name] for row in rows] for name in schema.names}
    table = pa.table(
        {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}, schema=schema
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_rows(path: Path, schema: pa.Schema) -> list[Row]:
    """Read one Parquet file; maps come back as dictionaries.

    Raises CorruptArtifactError when it is no Parquet file or lacks columns.
    """
    remedy = f"Remove the folder {path.parent} to have its stage run again."
    try:
        with open_plain(path) as file:
            lacking = [name for name in schema.names if name not in pq.read_schema(file).names]
            if lacking:
                raise CorruptArtifactError(
                    f"{path} lacks the columns {', '.join(lacking)}: another version of dynalign wrote it, or it is a "
                    f"file of another kind. {remedy}"
                )
            table = pq.read_table(file, columns=schema.names, partitioning=None)
        rows: list[Row] = table.cast(schema).to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptArtifactError(
            f"{path} cannot be read as Parquet with the columns {', '.join(schema.names)} ({error}). {remedy}"
        ) from error
    return rows


def read_parts(folders: Iterable[Path], schema: pa.Schema) -> list[Row]:
    """Rows of every `part-*.parquet` that the manifests of these folders list, in the order of folders and names.

    Raises CorruptArtifactError when a folder has no manifest, or a file cannot be read.
    """
    return [
        row
        for folder in folders
        for name in listed_names(folder, PART_PREFIX)
        for row in read_rows(folder / name, schema)
    ]
