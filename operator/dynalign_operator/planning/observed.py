"""Observed state of a run at one moment: the object, its Jobs, the ConfigMaps that it refers to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dynalign_contract.gang import WaitCause
from dynalign_contract.plain_text import plain_text
from dynalign_contract.result import StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.api.notifications import Notification
from dynalign_operator.api.v1alpha1 import AlignmentRun


class JobPhase(StrEnum):
    """A Job in one word."""

    ACTIVE = "Active"
    """Not finished: queued, pending, running or being deleted."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


DISRUPTED = "Disrupted"
"""Reason of a Job that failed through no fault of its own: preempted, evicted, its node or its launcher lost."""


@dataclass(frozen=True)
class Step:
    """A place in the sequence of a run's stages."""

    stage: Stage
    iteration: int | None = None
    """0-based; None for fetch and export."""

    def __str__(self) -> str:
        return str(self.stage) if self.iteration is None else f"{self.stage} of iteration {self.iteration}"


@dataclass(frozen=True, order=True)
class GangWait:
    """A node of a training gang that cannot reach node 0, as it says itself."""

    node: int
    since: datetime
    cause: WaitCause


@dataclass(frozen=True)
class JobProgress:
    """How far a stage says it is, in units of its own choice."""

    done: float
    total: float
    waits: tuple[GangWait, ...] = ()
    """Nodes that wait for node 0, in order."""
    part: Stage | None = None
    """The stage that a rollout is at; None for other Jobs, and while it is unknown."""

    @property
    def fraction(self) -> float | None:
        """Share that is done, 0 to 1; None while the total is unknown."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else None


@dataclass(frozen=True)
class PodTime:
    """How long the container of one pod of a Job has run."""

    index: int
    """Completion index."""
    start_time: datetime
    end_time: datetime | None = None
    """None while it runs, and where its end was not recorded."""


@dataclass(frozen=True)
class JobObservation:
    """One Job: one attempt of a stage, all shards together."""

    name: str
    stage: Stage
    iteration: int | None
    attempt: int
    creation_time: datetime
    phase: JobPhase = JobPhase.ACTIVE
    results: tuple[StageResult | None, ...] = ()
    """One a completion index; None where there is none yet, or none that can be read."""
    exit_code: int | None = None
    """Exit code of the container that decided the Job's end."""
    reason: str = ""
    """`Disrupted`, or what the cluster says: of its failure, or of a pod that waits. Empty when it says nothing."""
    message: str = ""
    """The scheduler's or kubelet's own words, reason included."""
    start_time: datetime | None = None
    """When the first container ran; None while the Job waits for a place."""
    waiting_since: datetime | None = None
    """Since when pods have waited for a place or been missing; None: since the Job was created."""
    missing_pods: int = 0
    """Number of pods that the Job should have and that could not be created."""
    completion_time: datetime | None = None
    pods: tuple[PodTime, ...] = ()
    """Pods whose container has started, in order of their starts; those that were removed are missing."""
    last_progress_time: datetime | None = None
    progress: JobProgress | None = None
    is_progress_known: bool = True
    """False while it cannot be read: pods are unreachable, reading is off, or nothing was reported yet."""
    seen_since: datetime | None = None
    """Since when the observing process has seen it wait, or run, by its own clock; None: from the beginning."""
    stranded: bool = False
    """It has run, but at present none of its pods does and some wait for a place or are missing."""
    suspended: bool = False
    """Held back by a queue (Kueue), which does not count as pending."""
    deleting: bool = False
    """Deleted, but its processes have not ended yet."""

    def __post_init__(self) -> None:
        for field_name in ("reason", "message"):  # the words of kubelets, registries and anybody who may write a status
            object.__setattr__(self, field_name, plain_text(getattr(self, field_name)))

    @property
    def step(self) -> Step:
        """The step that this is an attempt of."""
        return Step(self.stage, self.iteration)


@dataclass(frozen=True)
class ClaimObservation:
    """A PersistentVolumeClaim of the user's own."""

    access_modes: frozenset[str]
    """Access modes of its volume, or those it requests until it has one."""


@dataclass(frozen=True)
class Observed:
    """The planner's whole input beside the time."""

    run: AlignmentRun
    jobs: tuple[JobObservation, ...] = ()
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name -> key -> text, for the ConfigMaps that the run refers to."""
    claims: Mapping[str, ClaimObservation] | None = None
    """Name -> claim, for those of the user's own that exist; None if claims were not queried."""
    notifications: tuple[Notification, ...] = ()
    """Notifications that are over and not in the status yet."""


@dataclass(frozen=True)
class Children:
    """A run's Jobs as seen from one step. At most one of `active`, `succeeded` and `failed` is set."""

    attempt: int
    """The attempt that counts."""
    active: JobObservation | None
    succeeded: JobObservation | None
    failed: JobObservation | None
    previous: tuple[JobObservation, ...]
    """Jobs of other attempts or steps that have not finished. They decide nothing and have to go."""


def classify(jobs: Iterable[JobObservation], step: Step, attempt: int) -> Children:
    """Sort a run's Jobs once; decisions come after.

    The attempt that counts is `attempt`, or, when no Job has it, the next higher one that a Job has: then the status
    lags behind the cluster. Without either it is `attempt`, and all buckets are empty.
    """
    jobs = sorted(jobs, key=lambda job: (job.attempt, job.name))
    candidates = [job for job in jobs if job.step == step and job.attempt >= attempt]
    current = candidates[0] if candidates else None
    bucket = {phase: current if current and current.phase is phase else None for phase in JobPhase}
    return Children(
        attempt=current.attempt if current else attempt,
        active=bucket[JobPhase.ACTIVE],
        succeeded=bucket[JobPhase.SUCCEEDED],
        failed=bucket[JobPhase.FAILED],
        previous=tuple(job for job in jobs if job.phase is JobPhase.ACTIVE and job is not current),
    )
