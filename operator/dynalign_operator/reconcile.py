"""Observe, plan, apply, write the status once, publish events. No rules here: these are the planner's."""

from datetime import datetime

from dynalign_operator.clusters.base import Cluster, RunKey
from dynalign_operator.manifests.job import BuildSettings
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import plan


async def reconcile(cluster: Cluster, key: RunKey, now: datetime, settings: BuildSettings) -> Plan | None:
    """Carry one run on as far as it goes now; None when there is no such run.

    The objects come before the status: when the status cannot be written (ConflictError), the next reconcile finds
    objects that are ahead of it, and the planner catches up; the other way round a status could promise what nobody
    created. Events are published only once the status is stored. Raises ClusterError; it is then safe to call again.
    """
    observed = await cluster.observe(key)
    if observed is None:
        return None
    decided = plan(observed, now, settings)
    for job in decided.delete:
        await cluster.delete(key, job)
    for bundle in decided.create:
        await cluster.create(bundle)
    if decided.status != observed.run.status:
        await cluster.write_status(observed.run, decided.status)
    await cluster.publish(observed.run, decided.events)
    return decided
