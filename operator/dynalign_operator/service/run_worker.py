"""One reconcile of one run, and the consequences of its failure: status, queue and metrics.

Refusals that a user can remove (a quota, a typo) are written into the run's status and counted apart; faults of the
operator are written there too, with the reason InternalError, and count as errors, on which an alert fires. In both
cases the run is tried again after a pause, and other runs are not affected.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError, ConflictError, GoneError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.refusals import Cause, classify_refusal
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.metrics import OperatorMetrics
from dynalign_operator.planning import reasons
from dynalign_operator.planning.stored_run import BlockedRun, Blocker
from dynalign_operator.reconcile import InternalFaultError, Trace, reconcile, report_blocker, trace_nothing
from dynalign_operator.service.workqueue import PutOffError, WorkQueue

log = logging.getLogger("dynalign.worker")


class RunWorker:
    """Reconciles runs that a queue names."""

    def __init__(
        self,
        cluster: KubeCluster,
        queue: WorkQueue[RunKey],
        metrics: OperatorMetrics,
        settings: BuildSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        notify: Callable[[RunKey], None] = lambda _: None,
        trace: Trace = trace_nothing,
    ) -> None:
        self._cluster, self._queue, self._metrics, self._settings = cluster, queue, metrics, settings
        self._clock, self._notify, self._trace = clock, notify, trace

    async def work(self, key: RunKey) -> None:
        """Carry one run on. Raises PutOffError or InternalFaultError when it is to come back after a pause."""
        started = time.monotonic()
        try:
            await self._reconcile(key)
        except GoneError:
            self._cluster.forget(key)
        except ConflictError as error:
            raise PutOffError(str(error)) from error
        except ClusterError as error:
            await self._put_off(key, error)
        except Exception as error:
            self._metrics.reconcile_errors.inc()
            await self._report(key, Blocker(reasons.INTERNAL_ERROR, str(error)))
            raise
        finally:
            self._notify(key)
            self._metrics.reconcile_seconds.observe(time.monotonic() - started)

    async def _reconcile(self, key: RunKey) -> None:
        now = self._clock()
        plan = await reconcile(self._cluster, key, now, self._settings, self._trace)
        if plan is not None and plan.wake_at is not None:
            self._queue.add_after(key, (plan.wake_at - now).total_seconds())

    async def _put_off(self, key: RunKey, error: ClusterError) -> None:
        """Report a refusal that stays until somebody acts, count it, and try the run again after a pause."""
        refusal = classify_refusal(error)
        if refusal.cause is Cause.USER and refusal.blocker is not None:
            self._metrics.reconcile_refusals.labels(refusal.blocker.reason).inc()
        elif isinstance(error, RefusedError):
            self._metrics.reconcile_errors.inc()
        if refusal.blocker is not None:
            await self._report(key, refusal.blocker)
        raise PutOffError(str(error), refusal.obstacle) from error

    async def _report(self, key: RunKey, blocker: Blocker) -> None:
        """Write the blocker into the status, or publish an event where the status cannot be written."""
        try:
            stored = self._cluster.stored(key)
            if stored is not None:
                await report_blocker(self._cluster, BlockedRun(stored, blocker), self._clock(), self._settings)
        except ClusterError:
            with contextlib.suppress(ClusterError):
                await self._cluster.warn(key, blocker.reason, blocker.message)
        except Exception:
            log.exception("the status of %s could not report %s", key, blocker.reason)


__all__ = ["InternalFaultError", "RunWorker"]
