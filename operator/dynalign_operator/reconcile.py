"""Observe, plan, apply, write the status once, publish events. No rules here: these are the planner's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from dynalign_contract.stages import SIDE_STAGES
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import Cluster, RunKey
from dynalign_operator.clusters.errors import ClusterError, ConflictError, GoneError
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.plan import Event, EventType, JobBundle, Plan
from dynalign_operator.planning.planner import Observation, plan
from dynalign_operator.planning.stored_run import BlockedRun


class InternalFaultError(Exception):
    """The operator's own code failed at a run; the message says what it was doing and with which exception."""

    def __init__(self, doing: str, error: Exception) -> None:
        text = " ".join(str(error).split())[:200]
        super().__init__(
            f"dynalign failed while {doing}: {type(error).__name__}{f' ({text})' if text else ''}. This is a fault of "
            "the operator, whose log has the details; it tries again by itself and leaves the run's Jobs as they are."
        )


Trace = Callable[[AlignmentRun, AlignmentRunStatus, datetime], None]
"""Told of a run as it was, of the status that has been stored since, and when."""


def trace_nothing(_run: AlignmentRun, _status: AlignmentRunStatus, _now: datetime) -> None:
    """Default where nothing is traced."""


async def reconcile(
    cluster: Cluster, key: RunKey, now: datetime, settings: BuildSettings, trace: Trace = trace_nothing
) -> Plan | None:
    """Take one run as far as it goes now; None when there is no such run, or nothing to do for it.

    The objects come before the status: when the status cannot be written (ConflictError), the next reconcile finds
    objects that are ahead of it, and the planner catches up; the other way round a status could promise what nobody
    created. Events are published only once the status is stored. Raises ClusterError or InternalFaultError; it is then
    safe to call again.
    """
    with _doing("reading the run and its Jobs"):
        observed = await cluster.observe(key)
    if observed is None:
        return None
    planned = await _carry_out(cluster, key, observed, now, settings)
    if isinstance(observed, Observed):
        with _doing("tracing what has ended"):
            trace(observed.run, planned.status, now)
    return planned


async def report_blocker(cluster: Cluster, run: BlockedRun, now: datetime, settings: BuildSettings) -> None:
    """Let the planner say in the status why its last plan could not be made or applied. Raises as `reconcile` does."""
    key = RunKey(run.stored.namespace, run.stored.name)
    await _carry_out(cluster, key, run, now, settings)


async def _carry_out(
    cluster: Cluster, key: RunKey, observed: Observation, now: datetime, settings: BuildSettings
) -> Plan:
    with _doing("planning the next step"):
        planned = plan(observed, now, settings)
    with _doing("deleting and creating Jobs"):
        for job in planned.delete:
            await cluster.delete(key, job)
        refusals = [refusal for bundle in planned.create if (refusal := await _create(cluster, bundle)) is not None]
    run = observed.run if isinstance(observed, Observed) else observed.stored
    with _doing("writing the status"):
        if planned.status != run.status:
            await cluster.write_status(run, planned.status)
    with _doing("publishing events"):
        if isinstance(run, AlignmentRun):
            await cluster.publish(run, [*planned.events, *refusals])
    return planned


async def _create(cluster: Cluster, bundle: JobBundle) -> Event | None:
    """Create the objects of a Job. The refusal of a side stage's, on which no run depends, is an event and no error."""
    try:
        await cluster.create(bundle)
    except (ConflictError, GoneError):
        raise
    except ClusterError as error:
        if bundle.step.stage not in SIDE_STAGES:
            raise
        return Event(EventType.WARNING, reasons.REPORT_FAILED, f"Job {bundle.name} was not created: {error}")
    return None


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """Turn any exception of the block but a ClusterError into an InternalFaultError: a fault concerns one run only."""
    try:
        yield
    except ClusterError:
        raise
    except Exception as error:
        raise InternalFaultError(what, error) from error
