"""A stored run that cannot be planned: its identity, its status, and what is in the way."""

from dataclasses import dataclass

from dynalign_operator.api.status import AlignmentRunStatus


@dataclass(frozen=True)
class Blocker:
    """What keeps a run from continuing by itself: content of its Stalled condition."""

    reason: str
    message: str


@dataclass(frozen=True)
class StoredRun:
    """One version of a stored object of the kind AlignmentRun, whether or not it is a valid run."""

    namespace: str
    name: str
    generation: int
    resource_version: str
    status: AlignmentRunStatus
    """The stored status. Of a status that this version cannot read: one that has begun, with the stored conditions."""
    is_status_readable: bool = True
    """False for a status of another version of the operator: only its conditions may be replaced."""


@dataclass(frozen=True)
class InvalidRun:
    """A stored object that is not a valid run."""

    stored: StoredRun
    problem: str
    """Validation errors, one sentence each, with the fields."""
    living_jobs: tuple[str, ...] = ()
    """Names of its Jobs that have not finished."""


@dataclass(frozen=True)
class BlockedRun:
    """A run whose plan could not be made or applied, for a reason outside its plan: quota, a name in use, a fault."""

    stored: StoredRun
    blocker: Blocker
