"""Proof that the model got better: win rate, capability, ratings, and what a setback does."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import EndpointSettings


class WinRateMethod(StrEnum):
    """How two answers are compared."""

    PAIRWISE = "Pairwise"
    """The judge sees both, in both orders; an inconsistent verdict is a tie."""
    POINTWISE = "Pointwise"
    """Each answer is scored alone, as in training; suits judges too small to compare."""


class EvaluationJudge(StrEnum):
    """Judge that compares the answers."""

    BASE = "Base"
    LIVE = "Live"
    """The policy under evaluation itself: reported as such, never the headline."""
    ENDPOINT = "Endpoint"
    """A model behind an OpenAI-compatible server, as `endpoint` says."""


class WinRateSettings(Model):
    """Held-out win rate."""

    method: WinRateMethod = WinRateMethod.PAIRWISE
    judges: tuple[EvaluationJudge, ...] = Field(
        default=(EvaluationJudge.BASE, EvaluationJudge.LIVE), min_length=1, max_length=3
    )
    """The first one's win rate is the headline and decides gates."""
    endpoint: EndpointSettings | None = None
    """For `Endpoint` among the judges: the server."""
    max_tokens: int | None = Field(default=None, ge=1, le=131_072)
    """Maximum length of an answer, in tokens. Default: `generation.maxTokens`."""
    tie_margin: float = Field(default=0.0, ge=0, le=1)
    """Differences of the judge's preference (Pairwise) or reward (Pointwise) up to this count as ties."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of the interval around the win rate, and of the decision that the model got worse."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Bootstrap resamples over prompts."""


OWN_TASKS: Final = ("dynalign_choices", "dynalign_instructions")
"""Tasks that ship with dynalign."""
OWN_TASK_PREFIX: Final = "dynalign_"

TaskName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=52,
        json_schema_extra={"x-form": "the name of a task, for example dynalign_choices or ifeval"},
    ),
]


class CapabilitySettings(Model):
    """General capability, measured by tasks of lm-evaluation-harness through the stage's own engine."""

    tasks: tuple[TaskName, ...] = Field(default=(), max_length=16)
    """`dynalign_choices` (72 multiple-choice questions) and `dynalign_instructions` (64 instructions that a program can
    check) ship with dynalign and need no network. The data of every other task of the harness, for example `ifeval`,
    are brought onto the volume by the fetch stage, which runs once: name such tasks when you create the run. Default:
    none, capability is not measured."""
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    """Items of each task, from its first. Default: all."""
    max_drop: float = Field(default=0.02, ge=0, lt=1)
    """Maximum tolerated drop of the mean score below the base model's. A larger one, with `confidence`, is a
    regression."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided: of the verdict, and of each end of the intervals."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Paired bootstrap resamples over items."""

    @property
    def foreign_tasks(self) -> tuple[str, ...]:
        """The tasks that do not ship with dynalign."""
        return tuple(name for name in self.tasks if not name.startswith(OWN_TASK_PREFIX))


class OnRegression(StrEnum):
    """What happens when the evaluation finds that the model got worse, with confidence."""

    CONTINUE = "Continue"
    STOP = "Stop"
    ROLLBACK = "Rollback"
    """Go on from the best iteration so far."""


class Ratings(StrEnum):
    """How policies of several iterations are rated from the comparisons that the win rates are made of."""

    NONE = "None"
    BRADLEY_TERRY = "BradleyTerry"
    """Points above the base model as in chess: 400 for odds of 10 to 1. No further comparison is made."""


class EvaluationSettings(Model):
    """Proof that the model got better."""

    every: int = Field(default=1, ge=1, le=1000)
    """Evaluate every so many iterations; the last one always."""
    win_rate: WinRateSettings = WinRateSettings()
    capability: CapabilitySettings = CapabilitySettings()
    ratings: Ratings = Ratings.NONE
    on_regression: OnRegression = OnRegression.CONTINUE
