"""One reconcile, and what becomes of its failure: into the status, onto the queue, into the metrics.

Whose fault it is decides. What a user can mend (a quota, a typo) is said in the run's status and counted apart; what is
the operator's own is said there too, with the reason InternalError, and counts as an error that pages. Either way the
run comes back after a pause, and no other run notices.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError, ConflictError, GoneError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.cluster import ForeignObjectError, KubeCluster
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.metrics import OperatorMetrics
from dynalign_operator.planning import reasons
from dynalign_operator.reconcile import InternalFaultError, reconcile
from dynalign_operator.service.workqueue import PutOffError, WorkQueue

log = logging.getLogger("dynalign.worker")

_USERS_TO_MEND: Final = frozenset({400, 403, 413, 422})
"""HTTP statuses of refusals that stay until somebody acts: invalid, forbidden (quota, admission), too large."""
_LACKS_RIGHTS: Final = re.compile(r'User "[^"]*" cannot \w+ resource')
"""What RBAC says: the administrator's to mend."""
_TOO_LARGE: Final = re.compile(r"request is too large|Request entity too large|larger than max", re.IGNORECASE)
"""What etcd and the API server say of an object beyond their limit, with HTTP status 413 or 500."""


class RunWorker:
    """Reconciles runs that a queue names."""

    def __init__(
        self,
        cluster: KubeCluster,
        queue: WorkQueue[RunKey],
        metrics: OperatorMetrics,
        settings: BuildSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._queue, self._metrics, self._settings = cluster, queue, metrics, settings
        self._clock = clock

    async def work(self, key: RunKey) -> None:
        """Carry one run on. Raises PutOffError or InternalFaultError when it is to come back after a pause."""
        started = time.monotonic()
        try:
            await self._reconcile(key)
        except GoneError:
            self._cluster.forget(key)
        except InvalidRunError as error:
            await self._say_invalid(key, error)
        except ConflictError as error:
            raise PutOffError(str(error)) from error
        except (ForeignObjectError, RefusedError) as error:
            await self._put_off(key, error)
        except ClusterError as error:
            await self._explain(key, reasons.REFUSED, str(error))
            raise PutOffError(str(error)) from error
        except Exception as error:
            self._metrics.reconcile_errors.inc()
            await self._explain(key, reasons.INTERNAL_ERROR, str(error))
            raise
        finally:
            self._metrics.reconcile_seconds.observe(time.monotonic() - started)

    async def _reconcile(self, key: RunKey) -> None:
        now = self._clock()
        decided = await reconcile(self._cluster, key, now, self._settings)
        if decided is not None and decided.wake_at is not None:
            self._queue.add_after(key, (decided.wake_at - now).total_seconds())

    async def _say_invalid(self, key: RunKey, error: InvalidRunError) -> None:
        """Into the status what is wrong with the run; only a change of it brings it back."""
        try:
            await self._cluster.refuse(key, error, self._clock())
        except GoneError:
            self._cluster.forget(key)
        except ClusterError as failure:
            raise PutOffError(str(failure)) from failure

    async def _put_off(self, key: RunKey, error: ForeignObjectError | RefusedError) -> None:
        """Say what the user can mend; an API server that is away or busy is nobody's fault."""
        if isinstance(error, ForeignObjectError):
            reason, message = reasons.NAME_TAKEN, str(error)
        elif _TOO_LARGE.search(str(error)):
            reason, message = reasons.REFUSED, f"{error} {_remedy_of_size()}"
        elif error.status in _USERS_TO_MEND and not _LACKS_RIGHTS.search(str(error)):
            reason, message = reasons.REFUSED, str(error)
        else:
            self._metrics.reconcile_errors.inc()
            if error.status in _USERS_TO_MEND:
                await self._explain(key, reasons.REFUSED, str(error))
            raise PutOffError(str(error)) from error
        self._metrics.reconcile_refusals.labels(reason).inc()
        await self._explain(key, reason, message)
        obstacle = str(error) if isinstance(error, ForeignObjectError) else ""
        raise PutOffError(str(error), obstacle) from error

    async def _explain(self, key: RunKey, reason: str, message: str) -> None:
        """Into the status; as an event where that cannot be written. The run comes back in any case."""
        try:
            await self._cluster.explain(key, reason, message, self._clock())
        except ClusterError:
            with contextlib.suppress(ClusterError):
                await self._cluster.warn(key, reason, message)
        except Exception:
            log.exception("the status of %s could not say %s", key, reason)


def _remedy_of_size() -> str:
    return (
        "The API server stores objects of at most about 1.5 MiB, specification and status together: shorten the "
        "specification (long lists, annotations, labels), or export the model and go on with a new run."
    )


__all__ = ["InternalFaultError", "RunWorker"]
