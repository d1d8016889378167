"""What is to be done: the planner's output, a value."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dynalign_contract.plain_text import plain_text
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.planning.observed import Step


@dataclass(frozen=True)
class JobBundle:
    """One attempt of a stage: the Job and what it mounts."""

    name: str
    """Name of the Job and of its ConfigMap."""
    step: Step
    attempt: int
    job: KubernetesObject
    config_map: KubernetesObject
    volume_claim: KubernetesObject | None
    """The run's PersistentVolumeClaim, to be created where it does not exist; None for a claim of the user's own."""
    service: KubernetesObject | None = None
    """Through which the Job's pods find each other, to be created where it does not exist."""
    network_policy: KubernetesObject | None = None
    """Who may reach the Job's pods and whom they may reach, to be created where it does not exist."""


class EventType(StrEnum):
    """Kubernetes' two kinds of event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """Something that happened, for people: the message loses what has no place on a terminal."""

    type: EventType
    reason: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", plain_text(self.message))


@dataclass(frozen=True)
class Plan:
    """Apply in this order: delete, create, write the status, publish the events."""

    status: AlignmentRunStatus
    create: tuple[JobBundle, ...] = ()
    delete: tuple[str, ...] = ()
    """Names of Jobs. A deleted Job is observed as `deleting` until its processes have ended."""
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
    """Plan again at this time even if nothing is observed to change; None for a run that has ended."""
