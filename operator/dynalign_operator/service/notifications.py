"""The notifier of an operator process: keys from Secrets of the runs' namespaces, results into the cluster's store."""

import asyncio
from collections.abc import Callable

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.notifying.notifier import KeyNotFoundError, Notifier
from dynalign_operator.notifying.sender import open_sender
from dynalign_operator.planning.notifications import DueNotification


class Notifications:
    """Starts when `run` does; until then, and in an installation without notifications, `consider` does nothing."""

    def __init__(self, cluster: KubeCluster, wake: Callable[[RunKey], None]) -> None:
        self._cluster, self._wake = cluster, wake
        self._notifier: Notifier | None = None

    def consider(self, key: RunKey) -> None:
        """Begin to send what is due of a run. Never raises and never waits."""
        if self._notifier is not None:
            self._notifier.consider(key)

    async def run(self) -> None:
        """Send until cancelled."""
        async with open_sender(loopback=False) as sender:
            notifier = Notifier(
                sender, self._cluster.notifying_run, self._read_key, self._cluster.deliveries, self._wake
            )
            self._notifier = notifier
            try:
                await asyncio.Event().wait()
            finally:
                self._notifier = None
                await notifier.close()

    async def _read_key(self, run: AlignmentRun, due: DueNotification) -> str:
        reference = due.webhook.secret_ref
        try:
            key = await self._cluster.read_secret(run.metadata.namespace, reference)
        except ClusterError as error:
            raise KeyNotFoundError(str(error)) from error
        if key is None:
            raise KeyNotFoundError(f"the Secret {reference.name} has no key {reference.key}, or does not exist")
        return key
