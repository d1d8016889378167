"""What a place where Jobs run has to offer. `reconcile` knows nothing else of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.plan import Event, JobBundle
from dynalign_operator.planning.stored_run import InvalidRun, StoredRun


@dataclass(frozen=True)
class RunKey:
    """Which run."""

    namespace: str
    name: str


class Cluster(Protocol):
    """Observes and changes the objects of runs. Every method raises ClusterError."""

    async def observe(self, key: RunKey) -> Observed | InvalidRun | None:
        """The run, its Jobs and the ConfigMaps that it refers to; None when there is no such run."""
        ...

    async def create(self, bundle: JobBundle) -> None:
        """Create what does not exist yet. Creating the same bundle again is no error."""
        ...

    async def delete(self, key: RunKey, job: str) -> None:
        """Stop a Job and remove it once its processes have ended. A Job that is gone is no error."""
        ...

    async def write_status(self, run: AlignmentRun | StoredRun, status: AlignmentRunStatus) -> None:
        """Store a new status. Raises ConflictError when the run has changed since it was observed."""
        ...

    async def publish(self, run: AlignmentRun, events: Sequence[Event]) -> None:
        """Tell people what happened."""
        ...
