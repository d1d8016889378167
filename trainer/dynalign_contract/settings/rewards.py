"""Rewards beside the judge's: checks of an answer that a program decides, here, in the image or behind a server."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, JsonValue

from dynalign_contract.base import Model
from dynalign_contract.endpoints import URL_PATTERN, EndpointUse, ServerSettings
from dynalign_contract.names import form
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.settings.prompts import LanguageCode
from dynalign_contract.stages import Stage

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
    HTTP = "Http"
    """The server at `endpoint` says what the answer is worth, within `range`."""
    PYTHON = "Python"
    """The function behind `entryPoint`, in the image, says what the answer is worth, within `range`."""


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


EntryPointName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
        max_length=64,
        json_schema_extra=form("the name of an entry point: letters, digits and inner _.-, for example politeness"),
    ),
]
"""Name of an entry point in the group of rewards."""


class RewardRange(Model):
    """What failing and passing a check are worth, and between which values those of `Http` and `Python` lie."""

    low: float = Field(default=0.0, ge=-10, le=10)
    """Value of an answer that fails."""
    high: float = Field(default=1.0, ge=-10, le=10)
    """Value of an answer that passes."""


class RewardEndpoint(ServerSettings):
    """A server of rewards, and how it is asked."""

    url: str = Field(
        pattern=URL_PATTERN,
        max_length=1024,
        json_schema_extra=form("the address of a server of rewards, without a key, such as http://rewards:8000/score"),
    )
    """Address to which batches of answers are posted. No key belongs here. With `apiKeySecretRef` it begins with https,
    unless the host is inside the cluster: a Service's bare name, or `NAME.NAMESPACE.svc`. Link-local addresses and
    those of metadata services are refused, and in a cluster the pod's own."""
    api_key_secret_ref: SecretKeyRef | None = None
    """The key, sent as a bearer token by fetch, judge and evaluate. `dynalign run` takes it from the environment:
    DYNALIGN_REWARD_NAME_API_KEY, where NAME is the reward's name in upper case, with _ for each hyphen. Default: none
    is sent."""


def _is_none(value: object) -> bool:
    return value is None


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
    endpoint: RewardEndpoint | None = Field(default=None, exclude_if=_is_none)
    """For `type: Http`: the server."""
    entry_point: EntryPointName | None = Field(default=None, exclude_if=_is_none)
    """For `type: Python`: name of an entry point in the group `dynalign.rewards.v1`, registered by a package in the
    image of the stages."""
    columns: tuple[ColumnName, ...] = Field(default=(), max_length=16, exclude_if=lambda columns: not columns)
    """For `type: Http` and `Python`: columns of `prompts.supplied` that are sent with an answer."""
    batch_size: int | None = Field(default=None, ge=1, le=1024, exclude_if=_is_none)
    """For `type: Http` and `Python`: answers in one batch. Default: 32."""


DEFAULT_BATCH: Final = 32
"""Answers in one batch where `batchSize` is not given."""


Rewards = Annotated[tuple[RewardSettings, ...], Field(max_length=MAX_REWARDS)]
"""The verifiers of a run."""


def read_columns(reward: RewardSettings) -> tuple[str, ...]:
    """Columns of supplied prompts that a verifier reads."""
    return reward.columns if reward.column is None else (reward.column, *reward.columns)


def columns_of_rewards(rewards: tuple[RewardSettings, ...]) -> tuple[str, ...]:
    """Columns of supplied prompts that verifiers read, sorted, each once."""
    return tuple(sorted({column for reward in rewards for column in read_columns(reward)}))


REWARD_KEY_VARIABLES: Final = r"DYNALIGN_REWARD_[A-Z0-9_]+_API_KEY"
"""Environment variables that hold keys of servers of rewards, as a regular expression."""


def reward_endpoint(index: int, reward: RewardSettings) -> EndpointUse:
    """The server of the reward at `index` of `spec.rewards`."""
    return EndpointUse(
        field=f"rewards[{index}].endpoint",
        stage=Stage.JUDGE,
        variable=f"DYNALIGN_REWARD_{reward.name.upper().replace('-', '_')}_API_KEY",
        lengths=f"rewards[{index}].batchSize",
        also=(Stage.FETCH, Stage.EVALUATE),
    )
