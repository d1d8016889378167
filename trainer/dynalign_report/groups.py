"""Candidates of an iteration's training prompts, joined from rollouts, judgements and the training batch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.records import JUDGEMENT, JudgementRow, Table, read_parts, read_rows
from dynalign_contract.records.columns import Flag, Float32, Int32, Messages, Text
from dynalign_contract.supplied.turns import Message
from dynalign_report.facts import Candidate, Group

_Key = tuple[str, int]


class _TextRow(TypedDict):
    """The columns of a rollout that people read: the token ids are most of the file, and stay there."""

    prompt_id: Text
    candidate: Int32
    finish_reason: Text
    text: Text
    messages: Messages
    thought: NotRequired[Text]


class _AdvantageRow(TypedDict):
    """The columns of a batch row that people read."""

    prompt_id: Text
    candidate: Int32
    advantage: Float32
    masked: Flag


_TEXTS: Final = Table(_TextRow)
_ADVANTAGES: Final = Table(_AdvantageRow)


def read_groups(rollouts: Sequence[Path], judgements: Sequence[Path], batch: Path) -> tuple[Group, ...]:
    """Groups in the order of their prompts; without rewards or advantages where these have not been made yet.

    `rollouts` and `judgements` are folders of finished shards. Raises CorruptArtifactError.
    """
    scores = {(row["prompt_id"], row["candidate"]): row for row in read_parts(judgements, JUDGEMENT)}
    file = batch / BATCH_FILE
    advantages: dict[_Key, float | None] = {}
    if file.is_file():
        for row in read_rows(file, _ADVANTAGES):
            if not row["masked"]:
                advantages[row["prompt_id"], row["candidate"]] = number(row["advantage"])
    by_prompt: dict[str, list[_TextRow]] = {}
    for text in read_parts(rollouts, _TEXTS):
        by_prompt.setdefault(text["prompt_id"], []).append(text)
    return tuple(
        Group(
            prompt_id=prompt_id,
            messages=turns(rows[0]["messages"]),
            candidates=tuple(_candidate(row, scores, advantages) for row in sorted(rows, key=_number_of)),
        )
        for prompt_id, rows in sorted(by_prompt.items())
    )


def _number_of(row: _TextRow) -> int:
    return row["candidate"]


def _candidate(
    row: _TextRow, scores: Mapping[_Key, JudgementRow], advantages: Mapping[_Key, float | None]
) -> Candidate:
    key = (row["prompt_id"], row["candidate"])
    judged = scores.get(key)
    plain = Candidate(
        number=row["candidate"],
        text=row["text"],
        thought=row.get("thought", ""),
        truncated=row["finish_reason"] == "length",
        advantage=advantages.get(key),
    )
    if judged is None:
        return plain
    return Candidate(
        number=plain.number,
        text=plain.text,
        thought=plain.thought,
        truncated=plain.truncated,
        advantage=plain.advantage,
        reward=number(judged["reward"]),
        raw_reward=number(judged["raw_reward"]),
        aspects={score["aspect"]: number(score["score"]) for score in judged["scores"]},
        verifiers=numbers(judged.get("verifiers", {})),
        judges=numbers(judged.get("judges", {})),
        penalties=numbers(judged["penalties"]),
    )


def turns(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Role and content of each message."""
    return tuple((message["role"], message["content"]) for message in messages)


def number(value: float) -> float | None:
    """A number for people: four digits, None for NaN and infinities."""
    return round(value, 4) if math.isfinite(value) else None


def numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers for people by name."""
    return {name: number(value) for name, value in values.items()}
