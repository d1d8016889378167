"""Rewards beside the judge's: checks of an answer that a program decides."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, JsonValue

from dynalign_contract.base import Model
from dynalign_contract.names import form
from dynalign_contract.settings.prompts import LanguageCode

MAX_REWARDS: Final = 16
"""Verifiers of a run."""


class RewardType(StrEnum):
    """What a verifier checks."""

    REGEX = "Regex"
    """The answer contains a match of `pattern`."""
    JSON_SCHEMA = "JsonSchema"
    """The answer is one JSON document that fits `schema`."""
    LENGTH = "Length"
    """The answer's length lies between `min` and `max`, both included."""
    LANGUAGE = "Language"
    """The answer is in one of `languages`."""
    MATCH = "Match"
    """The answer is what the column `column` of its prompt says."""
    FORBIDDEN_TEXT = "ForbiddenText"
    """The answer contains none of `texts`."""


class LengthUnit(StrEnum):
    """What a length is counted in."""

    TOKENS = "Tokens"
    CHARACTERS = "Characters"


class Comparison(StrEnum):
    """How an answer is compared with a column."""

    EXACT = "Exact"
    """Both are the same text, however many spaces and line breaks separate the words."""
    NUMERIC = "Numeric"
    """The last number of the answer is that of the column, give or take `tolerance`."""


RewardName = Annotated[
    str,
    Field(
        pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
        max_length=32,
        json_schema_extra=form("lower-case letters, digits and inner hyphens, for example valid-json"),
    ),
]
"""Name of a verifier, in judgements and metrics."""

ColumnName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$",
        max_length=63,
        json_schema_extra=form("the name of a column: letters, digits and _.-, for example answer"),
    ),
]
"""Name of a column of supplied prompts."""

ForbiddenWords = Annotated[
    str, Field(pattern=r"\S", max_length=200, json_schema_extra=form("a text that is not empty"))
]


JsonSchema = Annotated[
    dict[str, JsonValue],
    Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]
"""A JSON schema, version 2020-12."""


class RewardRange(Model):
    """What failing and passing a check are worth."""

    low: float = Field(default=0.0, ge=-10, le=10)
    """Value of an answer that fails."""
    high: float = Field(default=1.0, ge=-10, le=10)
    """Value of an answer that passes."""


class RewardSettings(Model):
    """A verifier: a check of every answer, without its thought, whose value is part of the reward."""

    name: RewardName
    """Name in the judgements and metrics."""
    type: RewardType
    weight: float = Field(default=1.0, ge=0, le=1000)
    """Weight in the mean of the verifiers' values and the judge's reward (`judging.weight`); 0 only measures."""
    range: RewardRange = RewardRange()
    pattern: str | None = Field(default=None, min_length=1, max_length=1000)
    """A regular expression in RE2's syntax. For `type: Regex` it is looked for anywhere in the answer. For
    `type: Match` it finds the part of the answer to compare, its first group if it has one; an answer without it
    fails."""
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    """For `type: JsonSchema`: a JSON schema (2020-12) with references inside itself only."""
    unit: LengthUnit | None = None
    """For `type: Length`: what is counted. Default: Tokens."""
    min: int | None = Field(default=None, ge=0, le=1_000_000)
    """For `type: Length`: minimum length."""
    max: int | None = Field(default=None, ge=0, le=1_000_000)
    """For `type: Length`: maximum length."""
    languages: tuple[LanguageCode, ...] = Field(default=(), max_length=32)
    """For `type: Language`: ISO 639-1 codes such as `en`."""
    column: ColumnName | None = None
    """For `type: Match`: a column of `prompts.supplied`, with texts or numbers."""
    comparison: Comparison | None = None
    """For `type: Match`: how answer and column are compared. Default: Exact."""
    tolerance: float | None = Field(default=None, ge=0, le=1e12)
    """For `comparison: Numeric`: maximum difference of the two numbers. Default: 0."""
    texts: tuple[ForbiddenWords, ...] = Field(default=(), max_length=64)
    """For `type: ForbiddenText`: texts that must not occur, in upper or lower case."""


Rewards = Annotated[tuple[RewardSettings, ...], Field(max_length=MAX_REWARDS)]
"""The verifiers of a run."""


def columns_of_rewards(rewards: tuple[RewardSettings, ...]) -> tuple[str, ...]:
    """Columns of supplied prompts that verifiers read, sorted, each once."""
    return tuple(sorted({reward.column for reward in rewards if reward.column is not None}))
