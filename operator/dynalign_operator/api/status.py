"""Status of an AlignmentRun: a durable summary of what the volume's manifests and the Jobs say."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.result import ArtifactRef, Metric
from dynalign_contract.stages import Stage


class Phase(StrEnum):
    """The run in one word."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class StagePhase(StrEnum):
    """A stage in one word."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """What conditions say. Ready and Completed are good when True; Stalled and Degraded are bad when True."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    STALLED = "Stalled"
    COMPLETED = "Completed"
    DEGRADED = "Degraded"


class Condition(Model):
    """A Kubernetes condition; the message says what to do."""

    type: ConditionType
    status: str = Field(pattern="^(True|False|Unknown)$")
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    message: str = Field(default="", max_length=32_768)
    last_transition_time: datetime
    observed_generation: int | None = None


class StageStatus(Model):
    """A stage's current or last attempt."""

    stage: Stage
    phase: StagePhase = StagePhase.PENDING
    attempt: int = Field(default=1, ge=1)
    failures: int = Field(default=0, ge=0)
    """Attempts that failed and count against `policy.retries`."""
    job: str = ""
    start_time: datetime | None = None
    """Start of the first attempt."""
    completion_time: datetime | None = None
    artifact: ArtifactRef | None = None
    metrics: tuple[Metric, ...] = ()
    redo: bool = False
    """Some artifact of the run was damaged: this one is looked at again, and made again unless it is whole."""
    message: str = Field(default="", max_length=4096)
    """Why the last attempt failed."""


class IterationStatus(Model):
    """One iteration; old ones keep only their numbers and the artifacts that later ones need."""

    index: int = Field(ge=0)
    stages: tuple[StageStatus, ...] = ()
    reward: float | None = None
    win_rate: float | None = None
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    regressed: bool = False
    """The evaluation found it worse than the base model, with confidence."""
    prompts: ArtifactRef | None = None
    policy: ArtifactRef | None = None


class BestIteration(Model):
    """The iteration to use, and why."""

    iteration: int = Field(ge=0)
    win_rate: float | None = None
    reason: str = ""
    model_uri: str = ""
    """Folder of its policy, relative to the run's folder; the exported model once there is one."""


class AlignmentRunStatus(Model):
    """Where the run stands."""

    observed_generation: int | None = None
    phase: Phase = Phase.PENDING
    iteration: int | None = None
    """0-based, as in the volume's layout."""
    stage: Stage | None = None
    progress: str = ""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    estimated_completion_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    fetch: StageStatus | None = None
    iterations: tuple[IterationStatus, ...] = ()
    export: StageStatus | None = None
    best: BestIteration | None = None
    reward: float | None = None
    """Of the latest judged iteration."""
    win_rate: float | None = None
    """Of the latest evaluated iteration."""
