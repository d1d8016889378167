"""Status of an AlignmentRun: a durable summary of what the volume's manifests and the Jobs say."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self, TypedDict, Unpack

from pydantic import Field, model_validator

from dynalign_contract.base import Model
from dynalign_contract.estimate import Estimate
from dynalign_contract.goodput import Goodput, StageGoodput
from dynalign_contract.result import ArtifactRef, Metric, PlainText, PublishedPlace
from dynalign_contract.stages import Stage
from dynalign_contract.training_choice import TrainingChoice
from dynalign_operator.api.approvals import Approval, AwaitedApproval
from dynalign_operator.api.flat_estimates import join_flat_estimates
from dynalign_operator.api.notifications import Notification


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
    """What conditions say. Stalled and Degraded are bad when True; the others are good."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    STALLED = "Stalled"
    COMPLETED = "Completed"
    DEGRADED = "Degraded"
    REPORTED = "Reported"
    APPROVED = "Approved"
    """Only runs with `policy.approval` have it. False while the run waits for a person, or after a refusal."""
    NOTIFIED = "Notified"
    """Only runs with `notify` have it. False in an installation that sends no notifications."""


class Condition(Model):
    """A Kubernetes condition; the message says what to do."""

    type: ConditionType
    """What the condition is about."""
    status: str = Field(pattern="^(True|False|Unknown)$")
    """`True`, `False` or `Unknown`."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in one word, for tools."""
    message: PlainText = Field(default="", max_length=32_768)
    """Why, and what to do, for people."""
    last_transition_time: datetime
    """When `status` changed last."""
    observed_generation: int | None = None
    """`metadata.generation` of the run that this speaks of."""


class StageChanges(TypedDict, total=False):
    """Fields of a StageStatus that change together, for `StageStatus.evolve`."""

    stage: Stage
    phase: StagePhase
    attempt: int
    failures: int
    disruptions: int
    job: str
    part: Stage | None
    start_time: datetime | None
    completion_time: datetime | None
    artifact: ArtifactRef | None
    metrics: tuple[Metric, ...]
    verify_again: bool
    message: str
    goodput: StageGoodput | None


class StageStatus(Model):
    """A stage's current or last attempt."""

    stage: Stage
    """Name of the stage."""
    phase: StagePhase = StagePhase.PENDING
    """Where it stands."""
    attempt: int = Field(default=1, ge=1)
    """Number of the current or last attempt, from 1."""
    failures: int = Field(default=0, ge=0)
    """Attempts that failed and count against `policy.retries`."""
    disruptions: int = Field(default=0, ge=0)
    """Attempts in a row that ended through no fault of their own; they do not count, but each waits longer."""
    job: PlainText = ""
    """Name of the attempt's Job; empty before it is created."""
    part: Stage | None = Field(default=None, exclude_if=lambda part: part is None)
    """For a rollout that runs: the stage that it is at; `evaluate` is that of the iteration before."""
    start_time: datetime | None = None
    """Start of the first attempt."""
    completion_time: datetime | None = None
    """End of the last attempt."""
    artifact: ArtifactRef | None = None
    """What the stage has left on the volume; absent until it has succeeded."""
    metrics: tuple[Metric, ...] = ()
    """Numbers that the stage reports."""
    verify_again: bool = False
    """An artifact of the run was damaged: this one is verified again, and made again unless it is intact."""
    message: PlainText = Field(default="", max_length=4096)
    """Why the last attempt failed."""
    goodput: StageGoodput | None = Field(default=None, exclude_if=lambda goodput: goodput is None)
    """For what the stage has used the time of its devices, all attempts that have ended together."""

    @model_validator(mode="before")
    @classmethod
    def _accept_redo(cls, data: object) -> object:
        """Version 0.1.0 stored `verifyAgain` as `redo`."""
        if isinstance(data, Mapping) and "redo" in data:
            return {("verifyAgain" if name == "redo" else name): value for name, value in data.items()}
        return data

    def evolve(self, **changes: Unpack[StageChanges]) -> Self:
        """Return a copy with these fields changed."""
        return self.model_copy(update=changes)


class IterationChanges(TypedDict, total=False):
    """Fields of an IterationStatus that change together, for `IterationStatus.evolve`."""

    index: int
    stages: tuple[StageStatus, ...]
    reward: float | None
    win_rate: Estimate | None
    preference: float | None
    capability: Estimate | None
    capability_delta: Estimate | None
    regressed: bool
    prompts: ArtifactRef | None
    policy: ArtifactRef | None
    evaluation: ArtifactRef | None


class IterationStatus(Model):
    """One iteration; old ones keep only their numbers and the artifacts that later ones need."""

    index: int = Field(ge=0)
    """Number of the iteration, from 0."""
    stages: tuple[StageStatus, ...] = ()
    """Stages so far; none for iterations that are older than the last ten."""
    reward: float | None = None
    """Training reward: mean reward, 0 to 1, of the answers to the iteration's own training prompts."""
    win_rate: Estimate | None = None
    """Share of held-out prompts on which the policy beats the base model, ties counting half."""
    preference: float | None = None
    """The judge's mean preference for the policy's answers over the base model's, 0 to 1; 0.5 where it has none."""
    capability: Estimate | None = None
    """Mean score over the tasks of `evaluation.capability`, each of equal weight; each end of the interval holds with
    `evaluation.capability.confidence`."""
    capability_delta: Estimate | None = None
    """Capability minus the base model's, with the same confidence."""
    regressed: bool = False
    """The evaluation found, with confidence, that it loses against the base model, or that its capability has dropped
    by more than `evaluation.capability.maxDrop`."""
    prompts: ArtifactRef | None = None
    """Training prompts of the iteration."""
    policy: ArtifactRef | None = None
    """Policy that the iteration trained."""
    evaluation: ArtifactRef | None = None
    """Answers, comparisons and scores of tasks of the evaluation."""

    @model_validator(mode="before")
    @classmethod
    def _accept_flat_numbers(cls, data: object) -> object:
        return join_flat_estimates(data)

    def evolve(self, **changes: Unpack[IterationChanges]) -> Self:
        """Return a copy with these fields changed."""
        return self.model_copy(update=changes)


class BestIteration(Model):
    """The iteration to use, and why; or the base model, where every evaluated iteration is worse."""

    iteration: int | None = Field(default=None, ge=0)
    """Number of the iteration, from 0; absent where the base model is the best."""
    win_rate: Estimate | None = None
    """Held-out win rate; absent for the base model."""
    reason: PlainText = ""
    """Why it is the best."""
    model_uri: PlainText = ""
    """Folder of its policy, relative to the run's folder; the exported model once there is one of it."""


class ReportChanges(TypedDict, total=False):
    """Fields of a ReportStatus that change together, for `ReportStatus.evolve`."""

    phase: StagePhase
    attempt: int
    failures: int
    disruptions: int
    job: str
    iteration: int | None
    run_completion_time: datetime | None
    start_time: datetime | None
    completion_time: datetime | None
    path: str
    message: str


class ReportStatus(Model):
    """The latest report of the run, or the attempt to write it. The run does not depend on it."""

    phase: StagePhase = StagePhase.PENDING
    """Where the attempt stands. After `Failed` the next report is due with the next iteration, or at the run's end."""
    attempt: int = Field(default=1, ge=1)
    """Number of the current or last attempt; all attempts of all reports of the run are counted, from 1."""
    failures: int = Field(default=0, ge=0)
    """Attempts at this report that failed. The first is retried; at the run's end an operator goes on for a day."""
    disruptions: int = Field(default=0, ge=0)
    """Attempts at this report that were preempted, evicted or stopped."""
    job: PlainText = ""
    """Name of the attempt's Job; empty before it is created."""
    iteration: int | None = Field(default=None, ge=0)
    """Latest finished iteration that the report covers, from 0; absent where none has finished."""
    run_completion_time: datetime | None = None
    """`status.completionTime` of the run whose end the report covers; absent in the report of a run that goes on."""
    start_time: datetime | None = None
    """When the attempt was started."""
    completion_time: datetime | None = None
    """When the last attempt ended."""
    path: PlainText = ""
    """The latest report that was written, relative to the run's folder."""
    message: PlainText = Field(default="", max_length=4096)
    """Why the last attempt failed, or what is not in the report."""

    def evolve(self, **changes: Unpack[ReportChanges]) -> Self:
        """Return a copy with these fields changed."""
        return self.model_copy(update=changes)


class StatusChanges(TypedDict, total=False):
    """Fields of an AlignmentRunStatus that change together, for `AlignmentRunStatus.evolve`."""

    observed_generation: int | None
    phase: Phase
    iteration: int | None
    stage: Stage | None
    progress: str
    start_time: datetime | None
    completion_time: datetime | None
    estimated_completion_time: datetime | None
    conditions: tuple[Condition, ...]
    fetch: StageStatus | None
    iterations: tuple[IterationStatus, ...]
    export: StageStatus | None
    published: tuple[PublishedPlace, ...]
    training: TrainingChoice | None
    report: ReportStatus | None
    best: BestIteration | None
    reward: float | None
    win_rate: Estimate | None
    capability_delta: Estimate | None
    awaited_approval: AwaitedApproval | None
    approvals: tuple[Approval, ...]
    notifications: tuple[Notification, ...]
    goodput: Goodput | None


class AlignmentRunStatus(Model):
    """Where the run stands."""

    observed_generation: int | None = None
    """`metadata.generation` that the operator has acted on."""
    phase: Phase = Phase.PENDING
    """The run in one word."""
    iteration: int | None = None
    """0-based, as in the volume's layout."""
    stage: Stage | None = None
    """The current stage; absent when every stage is done."""
    progress: PlainText = ""
    """For people, for example `3/10 train 62%`: iterations are counted from 1 here."""
    start_time: datetime | None = None
    """When the run began, or went on after it was suspended or had failed; `policy.deadline` counts from here. With
    each approval it moves by the time that the run has waited for it."""
    completion_time: datetime | None = None
    """When the run succeeded or failed."""
    estimated_completion_time: datetime | None = None
    """When it will probably be complete; absent until every kind of stage that remains has been seen once."""
    conditions: tuple[Condition, ...] = ()
    """One of each type."""
    fetch: StageStatus | None = None
    """The stage before the first iteration."""
    iterations: tuple[IterationStatus, ...] = ()
    """All iterations that have begun."""
    export: StageStatus | None = None
    """The stage after the last iteration."""
    published: tuple[PublishedPlace, ...] = Field(default=(), exclude_if=lambda places: not places)
    """Places of `export.publish` where the exported model is now; each was read back."""
    training: TrainingChoice | None = None
    """How the policy is trained, as fetch or the latest training has reported it."""
    report: ReportStatus | None = None
    """The report of the run, which a stage beside the others writes."""
    best: BestIteration | None = None
    """The iteration with the best evaluation so far, or the base model."""
    reward: float | None = None
    """Training reward of the latest judged iteration, rounded to 3 digits; `iterations` has all of them."""
    win_rate: Estimate | None = None
    """Win rate of the latest evaluated iteration, rounded."""
    capability_delta: Estimate | None = None
    """Capability minus the base model's of the latest iteration that was evaluated with tasks, rounded."""
    awaited_approval: AwaitedApproval | None = Field(default=None, exclude_if=lambda awaited: awaited is None)
    """What the run waits for a person to approve; absent while it waits for nobody."""
    approvals: tuple[Approval, ...] = Field(default=(), exclude_if=lambda approvals: not approvals)
    """Decisions of people, at most one for each gate and iteration: the latest twenty."""
    notifications: tuple[Notification, ...] = Field(default=(), exclude_if=lambda notifications: not notifications)
    """Notifications of `spec.notify` that are over, the latest ones: none of them is sent again."""
    goodput: Goodput | None = Field(default=None, exclude_if=lambda goodput: goodput is None)
    """For what the iterations have used the time of GPUs, or of pods where they use none."""

    def evolve(self, **changes: Unpack[StatusChanges]) -> Self:
        """Return a copy with these fields changed."""
        return self.model_copy(update=changes)
