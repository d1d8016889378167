"""Who judges the candidates: one judge, or several whose rewards become one."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import EndpointSettings, EndpointUse
from dynalign_contract.names import form
from dynalign_contract.stages import Stage

MAX_JUDGES: Final = 5
"""Judges of a run."""


class JudgingMethod(StrEnum):
    """How a score is read off the judge."""

    EXPECTED_SCORE = "ExpectedScore"
    """Expected value of one digit 0-9 under the judge's next-token distribution."""
    VOTES = "Votes"
    """Reasons are sampled first, `votes` times; the expected values of the digits after them are averaged."""


class PanelJudge(StrEnum):
    """Model that judges, among several."""

    LIVE = "Live"
    """The policy that wrote the candidates."""
    BASE = "Base"
    LAGGED = "Lagged"
    """The policy of `lag` iterations ago."""
    ENDPOINT = "Endpoint"
    """A model behind an OpenAI-compatible server, as `endpoint` says."""


class Combine(StrEnum):
    """How the rewards of several judges become one."""

    MEAN = "Mean"
    """The weighted mean."""
    MEDIAN = "Median"
    """The weighted median; between two rewards it is their mean."""
    MINIMUM = "Minimum"
    """The lowest reward of a judge whose weight is above 0."""


class Noise(StrEnum):
    """What the standard error of a reward is taken from."""

    VOTES = "Votes"
    """The spread of the judges' votes."""
    DISAGREEMENT = "Disagreement"
    """The spread between the judges, once each judge's mean over the group is subtracted."""


JudgeName = Annotated[
    str,
    Field(
        pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
        max_length=32,
        json_schema_extra=form("lower-case letters, digits and inner hyphens, for example outside"),
    ),
]
"""Name of a judge, in judgements and metrics."""


class JudgeSettings(Model):
    """One of several judges: which model it is, how it is asked, and how much its reward counts."""

    name: JudgeName
    """Name in the judgements and metrics."""
    judge: PanelJudge
    weight: float = Field(default=1.0, ge=0, le=1000)
    """Weight in the combined reward; 0 only measures."""
    lag: int | None = Field(default=None, ge=1, le=64)
    """For `judge: Lagged`: how many iterations the judge is behind. Default: 1."""
    method: JudgingMethod | None = None
    """How a score is read off this judge. Default: `judging.method`, and ExpectedScore at an endpoint."""
    votes: int | None = Field(default=None, ge=1, le=32)
    """For `method: Votes`: how often reasons are sampled for every aspect of an answer. Default: `judging.votes`."""
    rationale_tokens: int | None = Field(default=None, ge=8, le=4096)
    """For `method: Votes`: the longest reasons, in tokens. Default: `judging.rationaleTokens`."""
    endpoint: EndpointSettings | None = None
    """For `judge: Endpoint`: the server. Its budget is for one attempt of one iteration's judging; each shard has an
    equal part of it."""

    @property
    def counts(self) -> bool:
        """Whether its reward is part of the combined one."""
        return self.weight > 0


Judges = Annotated[tuple[JudgeSettings, ...], Field(max_length=MAX_JUDGES)]
"""The judges of a run, where there are several."""


JUDGE_KEY_VARIABLES: Final = r"DYNALIGN_JUDGE_[A-Z0-9_]+_API_KEY"
"""Environment variables that hold keys of the judges' endpoints, as a regular expression."""


def judge_endpoint(index: int, judge: JudgeSettings) -> EndpointUse:
    """The endpoint of the judge at this place of `judging.judges`."""
    return EndpointUse(
        field=f"judging.judges[{index}].endpoint",
        stage=Stage.JUDGE,
        variable=f"DYNALIGN_JUDGE_{judge.name.upper().replace('-', '_')}_API_KEY",
        lengths="generation.maxTokens",
        also=(Stage.EVALUATE,) if judge.counts else (),
    )
