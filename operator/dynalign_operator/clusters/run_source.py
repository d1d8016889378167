"""What people look at of runs, wherever these are: working folders of this machine, or a cluster."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Final, Protocol

from pydantic import ValidationError

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.stages import SIDE_STAGES, Stage, iteration_of_part, stages_of_job
from dynalign_operator.api.approvals import AwaitedApproval, Decision, build_request
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.planning.observed import JobObservation, Step
from dynalign_operator.planning.plan import EventType

_NAMES_SHOWN: Final = 5


class RunNotFoundError(ClusterError):
    """There is no such run; the message has near names."""

    exit_code = ExitCode.BAD_INPUT


class LogNotFoundError(ClusterError):
    """There is no log of what was asked for; the message says which logs there are."""

    exit_code = ExitCode.BAD_INPUT


class NoClusterError(ClusterError):
    """No kubeconfig, no such context, or a kubeconfig that cannot be read."""

    exit_code: int = ExitCode.BAD_CONFIG


class UnreachableError(NoClusterError):
    """The API server does not answer, or says that it cannot at present."""

    exit_code = 1


class NotServedError(ClusterError):
    """The cluster does not know AlignmentRuns: its CustomResourceDefinition is not installed."""

    exit_code = ExitCode.BAD_CONFIG


class NotAllowedError(ClusterError):
    """The user's rights in the cluster do not cover this."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run is, in the words that commands and people use."""

    title: str
    """`namespace ml` or `/home/me/runs/x`."""
    files: str
    """Where its artifacts lie."""
    arguments: str
    """Arguments of the command line that name the run: `x -n ml`."""
    is_cluster: bool


@dataclass(frozen=True)
class ListedRun:
    """One of several runs."""

    name: str
    group: str
    """Namespace, or folder of working folders."""
    status: AlignmentRunStatus
    run: AlignmentRun | None
    """None where the stored object is not a valid run."""
    is_cluster: bool
    is_driven: bool = True
    """False for a run of this machine that no process works on."""
    problem: str = ""
    """Why the stored object is not a valid run."""
    folder: str = ""
    """Working folder of a run of this machine, by the name that the source knows it by."""


@dataclass(frozen=True)
class RunList:
    """Every run that can be seen, and what could not be looked at."""

    runs: tuple[ListedRun, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSnapshot:
    """One run at one moment."""

    run: AlignmentRun
    place: RunPlace
    jobs: tuple[JobObservation, ...] = ()
    is_driven: bool = True
    """False for a run of this machine that no process works on."""
    notes: tuple[str, ...] = ()
    """What could not be read, and why."""


@dataclass(frozen=True)
class RunEvent:
    """Something that happened to a run or to one of its Jobs."""

    time: datetime
    type: EventType
    reason: str
    message: str
    job: str = ""
    """Name of the Job that it is about; empty for the run itself."""
    count: int = 1
    """How often it was seen."""


@dataclass(frozen=True)
class LogSelection:
    """Which logs of a run; None means any, but for side stages, which have to be named."""

    stage: Stage | None = None
    iteration: int | None = None
    attempt: int | None = None

    def matches(self, step: Step, attempt: int) -> bool:
        """Whether the log of this attempt of a step is asked for; a rollout's is that of its stages too."""
        named = self.stage is not None and self.stage in (step.stage, *stages_of_job(step.stage))
        iteration = self._iteration_in(step)
        return (
            (named or (self.stage is None and step.stage not in SIDE_STAGES))
            and self.iteration in (None, iteration)
            and (iteration is None or iteration >= 0)  # the first rollout has no iteration before it
            and self.attempt in (None, attempt)
        )

    def _iteration_in(self, step: Step) -> int | None:
        """The iteration of what is asked for in the log of a step: a rollout may evaluate the iteration before."""
        if self.stage in (None, step.stage) or step.iteration is None:
            return step.iteration
        return iteration_of_part(self.stage, step.iteration)


@dataclass(frozen=True)
class LogOrigin:
    """The process that wrote a line."""

    job: str
    step: Step
    attempt: int
    index: int = 0
    """Shard or node."""
    has_others: bool = False
    """Whether the Job has several shards or nodes."""


@dataclass(frozen=True)
class LogLine:
    """A line of a log, without its line end."""

    origin: LogOrigin
    text: str


class RunSource(Protocol):
    """A place where runs can be looked at. Every method raises ClusterError with a sentence for people."""

    async def list_runs(self) -> RunList:
        """Every run of the place that the user may see."""
        ...

    async def get(self, name: str) -> RunSnapshot:
        """The run and its Jobs. Raises RunNotFoundError."""
        ...

    async def events(self, snapshot: RunSnapshot) -> tuple[RunEvent, ...]:
        """Events of a run and of the Job that is its latest, oldest first."""
        ...

    async def decide(self, snapshot: RunSnapshot, decision: Decision, reason: str) -> str:
        """Send the user's decision about what the run waits with; returns the user's name."""
        ...

    def logs(
        self, name: str, wanted: LogSelection, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[LogLine]:
        """Lines of the latest attempt that matches, all its shards. Raises LogNotFoundError.

        With `follow` the lines that are added, and those of every later attempt that matches, until the run has ended
        or, where `wanted` names an attempt, until that has. `tail` is the number of lines to begin with.
        """
        ...


def write_request(awaited: AwaitedApproval | None, by: str, decision: Decision, reason: str) -> str:
    """The text of a decision. Raises ClusterError where nothing is awaited, or the decision cannot be written."""
    if awaited is None:
        raise ClusterError("the run waits for no approval now.")
    try:
        return build_request(awaited, by, decision, reason).to_text()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ClusterError(f"the decision cannot be sent ({first['loc'][0]}: {first['msg']}).") from error


def lighten(status: AlignmentRunStatus) -> AlignmentRunStatus:
    """The status without numbers and artifacts of its stages, which take a megabyte in a run of ten iterations."""
    iterations = tuple(
        one.evolve(stages=tuple(entry.evolve(metrics=(), artifact=None) for entry in one.stages))
        for one in status.iterations
    )
    return status.evolve(iterations=iterations)


def explain_missing(name: str, where: str, known: Sequence[str]) -> RunNotFoundError:
    """The error for a run that is not there, with near names."""
    near = get_close_matches(name, known, n=_NAMES_SHOWN)
    shown = near or list(known[:_NAMES_SHOWN])
    more = f" and {len(known) - len(shown)} more" if not near and len(known) > len(shown) else ""
    there = f"it has {', '.join(shown)}{more}" if known else "it has none"
    return RunNotFoundError(f"there is no run {name} in {where}; {there}.")
