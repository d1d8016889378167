"""Compares the store with the API server once a minute: finds events that a watch missed, and watches that stopped
delivering.

A watch may stop delivering while its connection lives (kopf issues 957, 1145). So everything is listed, and compared
with the store a little later: objects that the watch should have delivered by then and has not are added here, and the
round counts as missed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.paths import JOBS, PODS, RUNS, Resource, collection_path
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.manifests.labels import MANAGED_SELECTOR
from dynalign_operator.manifests.objects import KubernetesObject

log = logging.getLogger("dynalign.resync")

EVERY_SECONDS: Final = 60.0
FIRST_RETRY_SECONDS: Final = 1.0
"""Pause before the first comparison is tried again: until it has succeeded the operator is not ready."""
PATIENCE_SECONDS: Final = 10.0
"""How far a watch may lag behind the API server."""
STALLED_WATCH_ROUNDS: Final = 3
"""Consecutive rounds with missed events after which the process fails its liveness probe."""

_LOOK_EVERY_SECONDS: Final = 0.2
_PAGE: Final = 500
"""Objects of one answer."""
_COMPARED: Final = ("namespace", "name", "uid", "resourceVersion")

_MANAGED: Final = {"labelSelector": MANAGED_SELECTOR}
_COLLECTIONS: Final[Mapping[Kind, tuple[Resource, Mapping[str, str]]]] = {
    Kind.RUN: (RUNS, {}),
    Kind.JOB: (JOBS, _MANAGED),
    Kind.POD: (PODS, _MANAGED),
}


class Resync:
    """Compares, and counts what each watch missed."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        namespaces: tuple[str, ...],
        enqueue: Callable[[RunKey], None],
        record: Callable[[Mapping[Kind, int]], None],
    ) -> None:
        self._api, self._store, self._namespaces = api, store, namespaces
        self._enqueue, self._record = enqueue, record
        self._missed_rounds = dict.fromkeys(Kind, 0)
        self.rounds = 0
        """Comparisons made."""
        self.complete = asyncio.Event()
        """Set once every kind has been listed, and the store holds what was there."""

    @property
    def liveness_problem(self) -> str | None:
        """Message naming the watches that stopped delivering; None when all deliver."""
        stalled = [str(kind) for kind, rounds in self._missed_rounds.items() if rounds >= STALLED_WATCH_ROUNDS]
        return f"the watch of {', '.join(stalled)} delivers no events\n" if stalled else None

    async def repeat(self) -> None:
        """Compare in an endless loop; a failed comparison is logged and tried again."""
        while True:
            try:
                missed = {kind: await self._compare(kind, PATIENCE_SECONDS) for kind in Kind}
                self.rounds += 1
                self.complete.set()
                self._record(missed)
            except ClusterError as error:
                log.warning("the comparison with the API server is put off: %s", error)
            except Exception:
                log.exception("the comparison with the API server failed; it is made again")
            await asyncio.sleep(EVERY_SECONDS if self.rounds else FIRST_RETRY_SECONDS)

    async def _compare(self, kind: Kind, patience: float) -> int:
        """How many changes the watch has missed; in the first round it is only now coming up, and none counts."""
        listed = {_key(obj): obj async for obj in self._list(kind)}
        before = set(self._store.keys(kind)) - listed.keys()
        behind = await self._await_watch(kind, listed, patience)
        missed = 0
        for key in behind:
            missed += await self._confirm_there(kind, key)
        for key in before:
            missed += await self._confirm_gone(kind, key)
        if not missed or not self.rounds:
            self._missed_rounds[kind] = 0
            return 0
        self._missed_rounds[kind] += 1
        log.warning("the watch of %s missed %d changes", kind, missed)
        return missed

    async def _await_watch(
        self, kind: Kind, listed: Mapping[RunKey, KubernetesObject], patience: float
    ) -> list[RunKey]:
        """What the watch has not told after so many seconds; waits no longer than there is something to wait for."""
        behind = [key for key, obj in listed.items() if self._store.is_behind(kind, obj)]
        end = asyncio.get_running_loop().time() + patience
        while behind and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            behind = [key for key in behind if self._store.is_behind(kind, listed[key])]
        return behind

    async def _confirm_there(self, kind: Kind, key: RunKey) -> int:
        """1 when an object that the store does not know in this version has not been deleted since it was listed."""
        found = await self._get(kind, key)
        if found is None or not self._store.is_behind(kind, found):
            return 0
        run = self._store.put(kind, found)
        if run is not None:
            self._enqueue(run)
        return 1

    async def _get(self, kind: Kind, key: RunKey) -> KubernetesObject | None:
        """One object, by listing it: that takes no right beyond those of the watches."""
        resource, _ = _COLLECTIONS[kind]
        query = {"fieldSelector": f"metadata.name={key.name}"}
        found = await self._api.get(collection_path(resource, key.namespace, query))
        return next(iter((found or {}).get("items") or ()), None)

    async def _confirm_gone(self, kind: Kind, key: RunKey) -> int:
        """1 when an object that the store still holds is gone from the API server."""
        known = self._store.version(kind, key)
        if known is None or await self._get(kind, key) is not None or self._store.version(kind, key) != known:
            return 0
        run = self._store.run_of_object(kind, key)
        self._store.forget(kind, key)
        if run is not None:
            self._enqueue(run)
        return 1

    async def _list(self, kind: Kind) -> AsyncIterator[KubernetesObject]:
        """The metadata of every object, in pages: which versions there are is all that is compared."""
        resource, query = _COLLECTIONS[kind]
        for namespace in self._namespaces or (None,):
            following: dict[str, str] | None = {}
            while following is not None:
                path = collection_path(resource, namespace, {**query, "limit": _PAGE, **following})
                found = await self._api.get(path, metadata_only=True) or {}
                for obj in found.get("items") or ():
                    yield {"metadata": {name: obj["metadata"].get(name, "") for name in _COMPARED}}
                token = (found.get("metadata") or {}).get("continue")
                following = {"continue": token} if token else None


def _key(obj: KubernetesObject) -> RunKey:
    return RunKey(obj["metadata"]["namespace"], obj["metadata"]["name"])
