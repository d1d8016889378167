"""Watches of runs, Jobs and pods by kopf: each event updates the store and enqueues the run that it is about."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from dynalign_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.cluster import COMPONENT
from dynalign_operator.clusters.kubernetes.store import Kind, Store, version_of
from dynalign_operator.clusters.kubernetes.transitions import Transitions
from dynalign_operator.manifests.labels import MANAGED, MANAGED_SELECTOR


async def run_watches(
    store: Store,
    enqueue: Callable[[RunKey], None],
    transitions: Transitions,
    record: Callable[[Kind], None],
    *,
    namespaces: tuple[str, ...],
    stop: asyncio.Event,
) -> None:
    """Watch these namespaces, or the whole cluster where none is named, until `stop` is set."""
    registry = kopf.OperatorRegistry()
    register(registry, store, enqueue, transitions, record)
    await kopf.operator(
        registry=registry,
        settings=watch_settings(cluster_wide=not namespaces),
        namespaces=namespaces,
        clusterwide=not namespaces,
        standalone=True,
        stop_flag=stop,
    )


def register(
    registry: kopf.OperatorRegistry,
    store: Store,
    enqueue: Callable[[RunKey], None],
    transitions: Transitions,
    record: Callable[[Kind], None],
) -> None:
    """Watch runs, Jobs and pods. `on.event` alone: no finalizer, no annotation, nothing that a dead operator blocks."""

    @kopf.on.login(registry=registry)
    def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    def note(kind: Kind, event: Mapping[str, Any]) -> None:
        record(kind)
        obj = dict(event["object"])
        key = RunKey(obj["metadata"]["namespace"], obj["metadata"]["name"])
        before = store.run_of_object(kind, key)
        # what the operator has written itself is in the store already, and no reason to look at the run again
        is_known = event["type"] != "DELETED" and store.version(kind, key) == version_of(obj)
        change = store.remove if event["type"] == "DELETED" else store.put
        run = change(kind, obj)
        if run is not None:
            transitions.note(kind, run, event)
            if not is_known:
                enqueue(run)
        if before is not None and before != run:  # somebody has changed the label that says whose it is
            enqueue(before)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def note_run(event: Any, **_: Any) -> None:
        note(Kind.RUN, event)

    @kopf.on.event("batch", "v1", "jobs", labels=MANAGED, registry=registry)
    async def note_job(event: Any, **_: Any) -> None:
        note(Kind.JOB, event)

    @kopf.on.event("", "v1", "pods", labels=MANAGED, registry=registry)
    async def note_pod(event: Any, **_: Any) -> None:
        note(Kind.POD, event)


class NoDiffs(kopf.DiffBaseStorage):
    """A store of no earlier states: `on.event` handlers get no diff, for which kopf would copy every object twice."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002 - kopf's signature
        """Return an empty essence."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - kopf's signature
        """Return an empty essence, which equals the new one."""
        return kopf.BodyEssence()

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing in the object."""


def watch_settings(*, cluster_wide: bool) -> kopf.OperatorSettings:
    """Settings under which a silent watch is noticed and nothing of kopf's is written into objects.

    `queueing.worker_limit` stays unset: an object that is listed or changes holds its worker for `idle_timeout`, and
    under a limit a Job's completion waits behind a long listing. The handlers only note: there is nothing that a limit
    would protect. Until it ends the worker also keeps the object whole, hundreds of megabytes of thousands of finished
    runs after a start; so idle workers end soon, and pages are small.
    """
    settings = kopf.OperatorSettings()
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 0.2
    for resource in (("batch", "v1", "jobs"), ("", "v1", "pods")):
        settings.watching.label_selectors[resource] = MANAGED_SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.posting.enabled = False
    settings.posting.reporting_component = COMPONENT
    settings.peering.standalone = True
    settings.scanning.disabled = not cluster_wide
    settings.process.ultimate_exiting_timeout = 30
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = NoDiffs()
    return settings
