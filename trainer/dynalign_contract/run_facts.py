"""What a report is told about a run: its specification, conditions and stages, as values of no cluster."""

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.goodput import Goodput
from dynalign_contract.result import Metric
from dynalign_contract.stages import Stage


class ConditionFacts(Model):
    """A condition of the run; the message says what to do."""

    type: str
    status: str
    reason: str
    message: str


class StageFacts(Model):
    """The current or last attempt of a stage."""

    stage: Stage
    iteration: int | None = None
    """0-based; None for fetch and export."""
    phase: str
    """`Pending`, `Running`, `Succeeded` or `Failed`."""
    metrics: tuple[Metric, ...] = ()
    seconds: float | None = None
    """Time between the first start and the end; None until it has ended."""
    attempt: int = 1
    message: str = ""
    """Why the last attempt failed."""
    digest: str = ""
    """Digest of its artifact; empty until there is one."""
    bytes: int = 0
    rows: int = 0
    producers: dict[str, str] = Field(default_factory=dict)
    """Library -> version that wrote the artifact."""


class RunFacts(Model):
    """What the status and the specification of a run say."""

    name: str
    phase: str
    """`Pending`, `Running`, `Suspended`, `Succeeded` or `Failed`."""
    progress: str = ""
    iterations: int = 0
    """Number of iterations that the specification asks for."""
    conditions: tuple[ConditionFacts, ...] = ()
    best: str = ""
    """Which iteration is the best and why; empty before an evaluation."""
    configuration: str = ""
    """The specification as YAML."""
    published: tuple[str, ...] = ()
    """Addresses of copies of the exported model."""
    stages: tuple[StageFacts, ...] = ()
    goodput: Goodput | None = Field(default=None, exclude_if=lambda goodput: goodput is None)
    """For what the iterations have used the time of devices; None while no stage has ended."""
