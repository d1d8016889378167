"""KubeCluster: runs are AlignmentRun objects, stages are Jobs. Reads what the watches told, writes through the API."""

import asyncio
import base64
import contextlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from dynalign_contract.references import SecretKeyRef
from dynalign_operator.api.status import AlignmentRunStatus, Phase
from dynalign_operator.api.v1alpha1 import API_VERSION, KIND, AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.adoption import find_difference
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.observe import observe_claim, observe_job
from dynalign_operator.clusters.kubernetes.owners import jobs_of_run, pods_by_job
from dynalign_operator.clusters.kubernetes.paths import (
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    NETWORK_POLICIES,
    PODS,
    RUNS,
    SECRETS,
    SERVICES,
    VOLUME_CLAIMS,
    Resource,
    collection_path,
    object_path,
)
from dynalign_operator.clusters.kubernetes.progress_book import Heard
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError, RunReader, stored_run
from dynalign_operator.clusters.kubernetes.sightings import Sightings
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.manifests.labels import JOB_NAME
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.volume import claims_of
from dynalign_operator.planning.objectives import parse_once
from dynalign_operator.planning.observed import ClaimObservation, JobObservation, JobPhase, Observed
from dynalign_operator.planning.plan import Event, EventType, JobBundle
from dynalign_operator.planning.stored_run import InvalidRun, StoredRun
from dynalign_operator.runfile.objective_text import LARGEST_OBJECTIVE_BYTES

log = logging.getLogger("dynalign.cluster")

COMPONENT: Final = "dynalign-operator"
PROGRESS_EVERY_SECONDS: Final = 30.0
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")
_EVENT_LENGTH: Final = 1024
"""Characters of an event's message that the API server takes."""

_RESOURCES: Final[Mapping[str, Resource]] = {
    "Job": JOBS,
    "ConfigMap": CONFIG_MAPS,
    "PersistentVolumeClaim": VOLUME_CLAIMS,
    "Service": SERVICES,
    "NetworkPolicy": NETWORK_POLICIES,
}
"""Kinds that the operator creates for a run."""

Progress = Mapping[RunKey, Heard]
"""Namespace and name of a Job -> what it last said."""


class ForeignObjectError(ClusterError):
    """An object of the needed name exists and is not the run's."""


class KubeCluster:
    """A Cluster with any number of runs."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        progress: Progress,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._store, self._progress, self._clock, self._now = api, store, progress, clock, now
        self._written: dict[RunKey, float] = {}
        """When the status of each run was written last."""
        self._sightings = Sightings(now)
        self.runs = RunReader(store)
        """The stored runs as values."""
        self.deliveries = Deliveries()
        """Notifications that are over and not in a status yet."""
        self._read: dict[RunKey, set[str]] = {}
        """Run -> uids of ended Jobs whose pods have been read."""

    async def observe(self, key: RunKey) -> Observed | InvalidRun | None:
        """The run, its Jobs and the ConfigMap with its objective; None when there is nothing to do.

        That is when there is no such run, when it is being deleted, or when it has ended with the specification that
        it has and none of its Jobs lives.
        """
        if self._store.version(Kind.RUN, key) is None:
            self.forget(key)
            return None
        if self._store.is_settled(key) and not self.deliveries.is_pending(key):
            return None
        try:
            run = self.runs.read(key)
        except InvalidRunError as error:
            living = (job["metadata"]["name"] for job in self._store.living_objects_of_run(Kind.JOB, key))
            return InvalidRun(error.stored, str(error), tuple(living))
        if run is None:
            return None
        owned = jobs_of_run(self._store, key, self._store.objects_of_run(Kind.JOB, key))
        pods = pods_by_job(self._store.objects_of_run(Kind.POD, key), owned)
        jobs = [await self._observe_job(key, job, pods[job["metadata"]["name"]]) for job in owned]
        found = tuple(job for job in jobs if job is not None)
        self._sightings.keep(key, (job.name for job in found))
        config_maps, claims = await self._config_maps(run, found), await self._claims(run, found)
        return Observed(run, found, config_maps, claims, self.deliveries.take(key, run.status.notifications))

    async def create(self, bundle: JobBundle) -> None:
        """Create what the Job needs, then the Job. Raises ForeignObjectError where a name is taken."""
        for manifest in (bundle.volume_claim, bundle.network_policy, bundle.service, bundle.config_map):
            if manifest is not None:
                await self._create(manifest, bundle.job)
        job = await self._create(bundle.job, bundle.job)
        self._store.put(Kind.JOB, job)
        await self._give(bundle.config_map, job)

    async def _give(self, manifest: KubernetesObject, job: KubernetesObject) -> None:
        """Make the Job the owner of its ConfigMap, so that the two go together.

        The ConfigMap has to be there before the Job, whose pods mount it, and the Job's uid is known only after. Should
        the operator end between the two, the ConfigMap is the run's, and goes with it.
        """
        metadata = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata.get("uid", "")}
        path = object_path(CONFIG_MAPS, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        await self._api.set_owner(path, {**owner, "controller": True})

    async def delete(self, key: RunKey, job: str) -> None:
        """Delete a Job in the foreground: it stays, marked as deleted, until its pods have ended."""
        await self._api.delete(object_path(JOBS, key.namespace, job), propagation="Foreground")

    async def write_status(self, run: AlignmentRun | StoredRun, status: AlignmentRunStatus) -> None:
        """Replace the status of the version that was observed; changes of mere numbers at most every 30 s.

        Of a status that this version cannot read the conditions alone are replaced.
        """
        if isinstance(run, StoredRun):
            key, version = RunKey(run.namespace, run.name), run.resource_version
        else:
            key, version = RunKey(run.metadata.namespace, run.metadata.name), run.metadata.resource_version
        if self._is_young(key) and _differs_in_numbers_only(run, status):
            return
        path, document = object_path(RUNS, key.namespace, key.name, "status"), json.loads(status.to_json())
        if isinstance(run, StoredRun) and not run.is_status_readable:
            written = await self._api.replace_conditions(path, version, document["conditions"])
        else:
            written = await self._api.replace_status(path, version, document)
        self._store.put(Kind.RUN, written)
        self._written[key] = self._clock()

    def stored(self, key: RunKey) -> StoredRun | None:
        """Identity and status of a run, even of one that cannot be read; None when it is gone or being deleted."""
        stored = self._store.get(Kind.RUN, key)
        return None if stored is None or "deletionTimestamp" in stored["metadata"] else stored_run(stored)

    def forget(self, key: RunKey) -> None:
        """Let go of what is remembered of a run that is no more."""
        self._store.forget(Kind.RUN, key)
        self._sightings.forget(key)
        self.deliveries.forget(key)
        for book in (self._written, self._read):
            book.pop(key, None)

    def notifying_run(self, key: RunKey) -> AlignmentRun | None:
        """The run if it names webhooks; None for another, for one that cannot be read, and for one that is gone."""
        stored = self._store.get(Kind.RUN, key)
        if stored is None or not (stored.get("spec") or {}).get("notify"):
            return None
        try:
            return self.runs.read(key)
        except InvalidRunError:
            return None

    async def read_secret(self, namespace: str, reference: SecretKeyRef) -> str | None:
        """The text that a Secret has under a key; None where there is none. Raises RefusedError, ClusterError."""
        found = await self._api.get(object_path(SECRETS, namespace, reference.name))
        data = ((found or {}).get("data") or {}).get(reference.key)
        if data is None:
            return None
        try:
            return base64.b64decode(data).decode()
        except ValueError as error:
            raise ClusterError(f"the Secret {reference.name} holds no text under {reference.key}") from error

    async def warn(self, key: RunKey, reason: str, message: str) -> None:
        """Say it in an event: for what the status has no room for. Does nothing for a run that cannot be read."""
        with contextlib.suppress(InvalidRunError):
            run = self.runs.read(key)
            if run is not None:
                await self.publish(run, [Event(EventType.WARNING, reason, message)])

    def _is_young(self, key: RunKey) -> bool:
        """Whether the status was written a moment ago, so that mere numbers can wait."""
        return self._clock() - self._written.get(key, float("-inf")) < PROGRESS_EVERY_SECONDS

    async def publish(self, run: AlignmentRun, events: Sequence[Event]) -> None:
        """Kubernetes Events on the run."""
        for event in events:
            await self._api.create(collection_path(EVENTS, run.metadata.namespace), build_event(run, event))

    async def _create(self, manifest: KubernetesObject, job: KubernetesObject) -> KubernetesObject:
        """Create it, or find that an earlier attempt has: an object of that name must be the run's own."""
        resource, namespace = _RESOURCES[manifest["kind"]], manifest["metadata"]["namespace"]
        stored = await self._api.create(collection_path(resource, namespace), manifest)
        if stored is not None:
            return stored
        name = manifest["metadata"]["name"]
        found = await self._api.get(object_path(resource, namespace, name))
        owner = job["metadata"]["ownerReferences"][0]["uid"]
        if found is None:
            raise ClusterError(f"{manifest['kind']} {name} is there and is not: it is being deleted; trying again.")
        owners = found["metadata"].get("ownerReferences") or ()
        if any(reference["kind"] == "Job" and reference["name"] == name for reference in owners):
            raise ClusterError(f"{manifest['kind']} {name} still goes with an earlier Job of that name; trying again.")
        if owner not in {reference["uid"] for reference in owners}:
            raise ForeignObjectError(
                f"there is a {manifest['kind']} {name} already in namespace {namespace}, which "
                "this run does not own. Remove it, or give the run another name."
            )
        field = find_difference(manifest, found)
        return found if field is None else await self._replace(manifest, job, field)

    async def _replace(self, manifest: KubernetesObject, job: KubernetesObject, field: str) -> KubernetesObject:
        """Make an object anew that says it is the run's and holds something else, unless a Job may be using it."""
        kind, name, namespace = manifest["kind"], manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        running = await self._api.get(object_path(JOBS, namespace, job["metadata"]["name"]))
        if kind != "ConfigMap" or running is not None:
            raise ForeignObjectError(
                f"the {kind} {name} in namespace {namespace} is not what this run needs: {field} differs, so it was "
                "made or changed by somebody else. Remove it; the run goes on by itself."
            )
        log.warning("%s %s/%s held something else in %s and is made anew", kind, namespace, name, field)
        await self._api.delete(object_path(CONFIG_MAPS, namespace, name), propagation="Background")
        made = await self._api.create(collection_path(CONFIG_MAPS, namespace), manifest)
        if made is None:
            raise ClusterError(f"{kind} {name} is still being deleted; trying again.")
        return made

    async def _observe_job(
        self, key: RunKey, job: KubernetesObject, pods: Sequence[KubernetesObject]
    ) -> JobObservation | None:
        """The watches are not in step: pods that have not told how their ended Job went are read, once.

        What the Job has said of itself counts while it is recent enough to tell standing still from silence.
        """
        heard = self._progress.get(RunKey(key.namespace, job["metadata"]["name"]))
        progress, changed = (None, None) if heard is None else (heard.progress, heard.changed)
        observed = observe_job(job, pods, progress=progress, last_progress_time=changed)
        read, uid = self._read.setdefault(key, set()), job["metadata"].get("uid", "")
        if observed is not None and _is_untold(observed) and uid not in read:
            pods = await self._read_pods(key, job)
            read.add(uid)
            observed = observe_job(job, pods, progress=progress, last_progress_time=changed)
        if observed is None:
            return None
        known = heard is not None and heard.is_current(self._now())
        return self._sightings.note(key, replace(observed, is_progress_known=known))

    async def _read_pods(self, key: RunKey, job: KubernetesObject) -> Sequence[KubernetesObject]:
        query = {"labelSelector": f"{JOB_NAME}={job['metadata']['name']}"}
        found = await self._api.get(collection_path(PODS, key.namespace, query))
        pods: Sequence[KubernetesObject] = (found or {}).get("items", ())
        for pod in pods:
            self._store.put(Kind.POD, pod)
        return pods_by_job(pods, [job])[job["metadata"]["name"]]

    async def _config_maps(self, run: AlignmentRun, jobs: Sequence[JobObservation]) -> dict[str, Mapping[str, str]]:
        """The ConfigMap with the objective, when a Job may be created next; it is parsed beside the event loop."""
        reference = run.spec.objective.config_map_ref
        if reference is None or not _may_create(run, jobs):
            return {}
        found = await self._api.get(object_path(CONFIG_MAPS, run.metadata.namespace, reference.name))
        if found is None:
            return {}
        data: Mapping[str, str] = found.get("data") or {}
        text = data.get(reference.key)
        if text is not None and len(text) <= LARGEST_OBJECTIVE_BYTES:
            await asyncio.to_thread(parse_once, reference, text)
        return {reference.name: data}

    async def _claims(self, run: AlignmentRun, jobs: Sequence[JobObservation]) -> Mapping[str, ClaimObservation] | None:
        """The user's own claims, when a Job that mounts them may be created next; None when none will be."""
        if not _may_create(run, jobs):
            return None
        namespace = run.metadata.namespace
        found = {name: await self._api.get(object_path(VOLUME_CLAIMS, namespace, name)) for name in claims_of(run)}
        return {name: observe_claim(claim) for name, claim in found.items() if claim is not None}


def _differs_in_numbers_only(run: AlignmentRun | StoredRun, status: AlignmentRunStatus) -> bool:
    """Whether a write may wait: progress has changed, or the counts and times in the message of what blocks a run."""
    if isinstance(run, StoredRun):
        return _without_numbers(run.status) == _without_numbers(status)
    before = run.status
    progress, estimate = before.progress, before.estimated_completion_time
    return status.evolve(progress=progress, estimated_completion_time=estimate) == before


def _without_numbers(status: AlignmentRunStatus) -> list[tuple[str, str, str, str]]:
    return [
        (condition.type, condition.status, condition.reason, _NUMBER.sub("#", condition.message))
        for condition in status.conditions
    ]


def build_event(run: AlignmentRun, event: Event) -> KubernetesObject:
    """A core/v1 Event about a run."""
    reference = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "namespace": run.metadata.namespace,
        "name": run.metadata.name,
        "uid": run.metadata.uid,
    }
    now = datetime.now().astimezone().isoformat(timespec="microseconds")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{run.metadata.name}.", "namespace": run.metadata.namespace},
        "involvedObject": reference,
        "type": str(event.type),
        "reason": event.reason,
        "message": event.message[:_EVENT_LENGTH],
        "action": event.reason,
        "eventTime": now,
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "source": {"component": COMPONENT},
    }


def _may_create(run: AlignmentRun, jobs: Sequence[JobObservation]) -> bool:
    """Whether the planner may create a Job next: not while another one lives, nor for a run that has ended."""
    ended = run.status.phase in (Phase.SUCCEEDED, Phase.FAILED)
    is_settled = ended and run.status.observed_generation == run.metadata.generation
    return not is_settled and not any(job.phase is JobPhase.ACTIVE for job in jobs)


def _is_untold(job: JobObservation) -> bool:
    """Whether the Job has ended and not all of its pods are known to have said how."""
    return job.phase is not JobPhase.ACTIVE and None in job.results
