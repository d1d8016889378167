"""What the page is given and what it may ask for, as JSON. Texts of models, servers and users are made visible here."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from dynalign_contract.base import Model
from dynalign_contract.plain_text import reveal_hidden
from dynalign_operator.api.approvals import LONGEST_REASON, Decision, Gate

PAGE_SIZE: Final = 50
"""Runs on one page of the list."""

Shown = Annotated[str, AfterValidator(reveal_hidden)]
"""A text from outside, in which control and bidirectional characters are named."""


class Tone(StrEnum):
    """How a run's phase is marked, beside its word."""

    GOOD = "good"
    BAD = "bad"
    HELD = "held"
    PLAIN = "plain"


class Headline(Model):
    """What is said of a run in the list and at the top of its page."""

    key: str
    """Names the run in requests."""
    name: Shown
    group: Shown
    """Namespace, or the folder that holds the working folder."""
    is_cluster: bool
    phase: str
    remark: Shown = ""
    """Why the run does not go on, in a word."""
    tone: Tone = Tone.PLAIN
    iteration: str = ""
    """`2/10`, counted from 1."""
    stage: str = ""
    stage_share: str = ""
    """Share of the current stage that is done, such as `62%`."""
    fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the run's stages that are done."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ends_at: datetime | None = None
    """Estimate of the run's end."""
    gpus: int = 0
    """GPUs that the pods of the current Job request."""
    win_rate: str = ""
    """Latest held-out win rate with its interval."""


class RunRow(Headline):
    """A run in the list."""

    sentence: Shown = ""
    """What it does, or why it does not."""
    to_do: Shown = ""
    """What a person should do; empty where that is nothing."""


class RunsPage(Model):
    """One page of the list."""

    rows: tuple[RunRow, ...]
    page: int
    """Number of the page, from 1."""
    pages: int
    matched: int
    """Runs that match the search and the filter."""
    total: int
    phases: dict[str, int]
    """Phase -> runs that match the search."""
    notes: tuple[Shown, ...] = ()


class StageView(Model):
    """One stage of the run."""

    stage: str
    phase: str
    attempt: int = 1
    started_at: datetime | None = None
    seconds: float | None = None
    """Duration from the first start to the end; None until it has ended."""
    message: Shown = ""
    """Why the last attempt failed."""


class IterationView(Model):
    """One iteration with its figures and stages."""

    index: int
    is_best: bool
    reward: str
    """Training reward."""
    held_out_reward: str
    win_rate: str
    capability: str
    kl: str
    stages: tuple[StageView, ...]


class FindingView(Model):
    """A measured answer to the question whether it worked."""

    title: str
    value: str
    sentence: str
    tone: Literal["good", "bad", "open"]
    low: float | None = None
    """Ends and centre of the interval where the number is a share."""
    value_share: float | None = None
    high: float | None = None


class ConditionView(Model):
    """A condition of the run."""

    type: str
    status: str
    reason: str
    message: Shown
    since: datetime
    is_trouble: bool


class EventView(Model):
    """Something that happened."""

    time: datetime
    reason: Shown
    message: Shown
    count: int
    is_warning: bool


class CommandView(Model):
    """A command line that does what the page shows, for the user's own terminal."""

    title: str
    command: Shown


class ActionsView(Model):
    """What may be changed."""

    generation: int
    """Version of the specification that the page shows."""
    can_suspend: bool = False
    can_resume: bool = False
    iterations: int
    """What the specification asks for."""
    can_add_iterations: bool = False
    note: Shown = ""
    """Why nothing can be changed here, and where it can."""


class ReportView(Model):
    """The run's report."""

    made_at: datetime | None = None
    """None where there is none yet."""
    can_be_made: bool = False
    note: Shown = ""
    sentence: Shown = ""
    """What the report that the run itself writes covers, or why it could not be written; empty before the first."""
    ended_at: datetime | None = None
    """When the attempt at it ended; None while it is being written."""
    is_trouble: bool = False


class ApprovalView(Model):
    """What waits for a person's approval."""

    gate: Gate
    iteration: int
    artifact: str
    """Digest of what is approved: a decision names it, and holds for nothing else."""
    subject: str
    since: datetime
    sample: Shown = ""
    """A few rows of it, for a run of this machine."""


class RunPage(Headline):
    """Everything that the page of a run shows but its logs."""

    place: Shown
    files: Shown
    """Where its artifacts lie."""
    does: tuple[Shown, ...]
    waits: tuple[Shown, ...]
    to_do: tuple[Shown, ...]
    findings: tuple[FindingView, ...]
    best: Shown = ""
    charts: dict[str, tuple[dict[str, Any], ...]]
    """Section -> its charts."""
    fetch: StageView | None = None
    iterations: tuple[IterationView, ...]
    """Latest first."""
    export: StageView | None = None
    conditions: tuple[ConditionView, ...]
    events: tuple[EventView, ...]
    """Latest first."""
    commands: tuple[CommandView, ...]
    actions: ActionsView
    approval: ApprovalView | None = None
    report: ReportView
    configuration: Shown
    notes: tuple[Shown, ...] = ()


class Change(StrEnum):
    """What a person may change in a run."""

    SUSPEND = "suspend"
    RESUME = "resume"
    ITERATIONS = "iterations"


class ChangeRequest(Model):
    """A confirmed change."""

    key: str = Field(max_length=1024)
    change: Change
    generation: int
    """Version of the specification that the person saw."""
    iterations: int | None = Field(default=None, ge=1, le=1000)


class DecisionRequest(Model):
    """A confirmed decision about what waits for approval, as the person has seen it."""

    key: str = Field(max_length=1024)
    gate: Gate
    iteration: int = Field(ge=0)
    artifact: str = Field(max_length=128)
    decision: Decision
    reason: str = Field(default="", max_length=LONGEST_REASON)


class ReportRequest(Model):
    """The wish for a report."""

    key: str = Field(max_length=1024)


class Answer(Model):
    """What came of a request, as a sentence."""

    message: Shown
