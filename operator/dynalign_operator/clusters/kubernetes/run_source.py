"""Runs of a cluster, read with the rights of the user's own kubeconfig."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from dynalign_contract.stages import SIDE_STAGES
from dynalign_operator.api.approvals import Decision
from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import KIND, AlignmentRun
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.approving import annotate_decision, read_user_name
from dynalign_operator.clusters.kubernetes.change_run import change_run
from dynalign_operator.clusters.kubernetes.create_run import create_run
from dynalign_operator.clusters.kubernetes.observe import observe_job
from dynalign_operator.clusters.kubernetes.owners import is_controlled_by, pods_by_job
from dynalign_operator.clusters.kubernetes.paths import (
    EVENTS,
    JOBS,
    PODS,
    RUNS,
    Resource,
    collection_path,
    object_path,
)
from dynalign_operator.clusters.kubernetes.pod_logs import LoggingPod, Look, PodsNow, follow_pods, read_pods
from dynalign_operator.clusters.kubernetes.pods import parse_time, read_pod
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError, parse_run, stored_run
from dynalign_operator.clusters.kubernetes.user_access import KubeChoice, UserAccess, explain_refusal, open_user_api
from dynalign_operator.clusters.run_source import (
    ListedRun,
    LogLine,
    LogNotFoundError,
    LogOrigin,
    LogSelection,
    NotAllowedError,
    NotServedError,
    RunEvent,
    RunList,
    RunNotFoundError,
    RunPlace,
    RunSnapshot,
    explain_missing,
    lighten,
    write_request,
)
from dynalign_operator.manifests.labels import RUN, read_job_labels
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.volume import claim_name
from dynalign_operator.planning.observed import JobPhase, Step
from dynalign_operator.planning.plan import EventType
from dynalign_operator.runfile.run_file import RunFile

_T = TypeVar("_T")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)

_Job = tuple[KubernetesObject, Sequence[KubernetesObject]]
"""A Job of the run with its pods."""


@asynccontextmanager
async def open_kube_source(choice: KubeChoice, *, everywhere: bool = False) -> AsyncIterator["KubeRunSource"]:
    """Connect to the user's cluster; `everywhere` lists the runs of all namespaces. Raises NoClusterError."""
    async with open_user_api(choice) as access:
        yield KubeRunSource(access, choice, everywhere=everywhere)


class KubeRunSource:
    """A RunSource: the runs of a namespace, or (for `list_runs`) of all of them."""

    def __init__(self, access: UserAccess, choice: KubeChoice, *, everywhere: bool) -> None:
        self._access, self._api, self._choice, self._everywhere = access, access.api, choice, everywhere
        self._known: dict[str, tuple[str, ListedRun]] = {}

    @property
    def namespace(self) -> str:
        """The namespace whose runs are meant."""
        return self._access.namespace

    def in_namespace(self, namespace: str) -> "KubeRunSource":
        """The runs of another namespace, over the same connection."""
        return KubeRunSource(replace(self._access, namespace=namespace), self._choice, everywhere=self._everywhere)

    async def change(self, run: AlignmentRun, fields: Mapping[str, Any]) -> None:
        """Set fields of a run's specification. Raises NotAllowedError, RunNotFoundError, ClusterError."""
        await change_run(self._access, run, fields)

    async def create(self, file: RunFile) -> None:
        """Create what a run file holds. Raises ClusterError where the run is there already."""
        await create_run(self._access, file)

    async def list_runs(self) -> RunList:
        """Every run that the user may see: those of all namespaces where that is allowed, else of the user's own."""
        notes: list[str] = []
        namespace = None if self._everywhere else self.namespace
        try:
            found = await self._list_objects(namespace)
        except NotAllowedError:
            if namespace is not None:
                raise
            notes.append(f"you may not list the runs of all namespaces; these are those of {self.namespace}.")
            found = await self._list_objects(self.namespace)
        return RunList(await asyncio.to_thread(self._parse, found), tuple(notes))

    def _parse(self, found: Sequence[KubernetesObject]) -> tuple[ListedRun, ...]:
        """The runs of a list; those whose version was parsed for the last list are taken from there."""
        known, self._known = self._known, {}
        for stored in found:
            uid, version = stored["metadata"]["uid"], stored["metadata"]["resourceVersion"]
            before = known.get(uid)
            self._known[uid] = before if before is not None and before[0] == version else (version, _listed(stored))
        return tuple(listed for _, listed in self._known.values())

    async def get(self, name: str) -> RunSnapshot:
        """The run with its Jobs and pods; what the user may not read of these is named in the notes."""
        stored = await self._stored(name)
        run = parse_run(stored)
        notes: list[str] = []
        try:
            jobs = await self._jobs(run)
        except NotAllowedError as error:
            jobs = []
            notes.append(str(error))
        observed = (observe_job(job, pods) for job, pods in jobs)
        return RunSnapshot(
            run=run,
            place=self._place(run),
            jobs=tuple(job for job in observed if job is not None),
            notes=tuple(notes),
        )

    async def events(self, snapshot: RunSnapshot) -> tuple[RunEvent, ...]:
        """Events of the run, of the Job created last, and of the claim while that Job waits: why there are no pods, or
        no volume."""
        run = snapshot.run
        jobs = (job for job in snapshot.jobs if job.stage not in SIDE_STAGES)
        latest = max(jobs, key=lambda job: job.creation_time, default=None)
        events = await self._events_of(KIND, run.metadata.name, uid=run.metadata.uid)
        if latest is not None:
            events += await self._events_of("Job", latest.name)
            if latest.start_time is None and latest.phase is JobPhase.ACTIVE:
                events += await self._events_of("PersistentVolumeClaim", claim_name(run))
        return tuple(sorted(events, key=lambda event: event.time))

    async def decide(self, snapshot: RunSnapshot, decision: Decision, reason: str) -> str:
        """Annotate the run with the decision; the name is the one by which the API server knows the user."""
        run = snapshot.run
        name = await read_user_name(self._access)
        text = write_request(run.status.awaited_approval, name, decision, reason)
        await annotate_decision(self._access, run.metadata.name, text)
        return name

    async def logs(
        self, name: str, wanted: LogSelection, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[LogLine]:
        """Lines of the pods' logs. Raises LogNotFoundError where no pod has one and none will come."""
        run = parse_run(await self._stored(name))
        verb = f"read the logs of pods in namespace {self.namespace}"
        try:
            if follow:
                async for line in follow_pods(self._api, self._looks(name, wanted), tail):
                    yield line
                return
            jobs = await self._jobs(run)
            pods = _latest_attempt(_logging_pods(jobs, wanted))
            if not pods:
                raise LogNotFoundError(f"{name} has no such log{_have(_logging_pods(jobs, LogSelection()))}.")
            async for line in read_pods(self._api, pods, tail):
                yield line
        except RefusedError as error:
            raise explain_refusal(error, self._access, verb) from error

    def _looks(self, name: str, wanted: LogSelection) -> Look:
        """A function that finds the pods to follow: those of the latest attempt at first, then later ones too."""
        since: list[str] = []

        async def look() -> PodsNow:
            run = parse_run(await self._stored(name))
            jobs = await self._jobs(run)
            pods = _logging_pods(jobs, wanted)
            created = {job["metadata"]["name"]: str(job["metadata"]["creationTimestamp"]) for job, _ in jobs}
            if not since and pods:
                since.append(created[pods[-1].origin.job])
            ended = run.status.phase in _ENDED and run.status.observed_generation == run.metadata.generation
            asked = wanted.attempt is not None and bool(pods) and all(pod.has_ended for pod in pods)
            return PodsNow([pod for pod in pods if created[pod.origin.job] >= since[0]], is_last=ended or asked)

        return look

    async def _list_objects(self, namespace: str | None) -> list[KubernetesObject]:
        where = "all namespaces" if namespace is None else f"namespace {namespace}"
        found = await self._try(self._api.get(collection_path(RUNS, namespace)), f"list alignmentruns in {where}")
        if found is None:
            raise NotServedError(
                "the cluster does not know AlignmentRuns: dynalign is not installed in it. "
                "`helm install dynalign charts/dynalign` installs it; --context chooses another cluster."
            )
        items: list[KubernetesObject] = found["items"]
        return items

    async def _stored(self, name: str) -> KubernetesObject:
        """The stored object. Raises RunNotFoundError with near names, NotServedError."""
        namespace = self.namespace
        path = object_path(RUNS, namespace, name)
        found = await self._try(self._api.get(path), f"get alignmentruns in namespace {namespace}")
        if found is not None:
            return found
        known = [run["metadata"]["name"] for run in await self._list_objects(namespace)]
        missing = explain_missing(name, f"namespace {namespace}", known)
        if others := await self._namespaces_of(name):
            raise RunNotFoundError(f"{missing} Namespace {', '.join(others)} has one: -n {others[0]}.")
        raise missing

    async def _namespaces_of(self, name: str) -> list[str]:
        """Other namespaces with a run of this name, as far as the user may look."""
        try:
            runs = await self._list_objects(None)
        except ClusterError:
            return []
        return [run["metadata"]["namespace"] for run in runs if run["metadata"]["name"] == name]

    async def _jobs(self, run: AlignmentRun) -> list[_Job]:
        """The Jobs that the run owns, with their pods. Raises NotAllowedError."""
        jobs = [job for job in await self._owned(JOBS, run) if is_controlled_by(job, run.metadata.uid)]
        pods = pods_by_job(await self._owned(PODS, run), jobs)
        return [(job, pods[job["metadata"]["name"]]) for job in jobs]

    async def _owned(self, resource: Resource, run: AlignmentRun) -> list[KubernetesObject]:
        path = collection_path(resource, self.namespace, {"labelSelector": f"{RUN}={run.metadata.name}"})
        found = await self._try(self._api.get(path), f"list {resource.plural} in namespace {self.namespace}")
        items: list[KubernetesObject] = (found or {}).get("items", [])
        return items

    async def _events_of(self, kind: str, name: str, uid: str = "") -> list[RunEvent]:
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        path = collection_path(EVENTS, self.namespace, {"fieldSelector": selector})
        found = await self._try(self._api.get(path), f"list events in namespace {self.namespace}")
        items: list[KubernetesObject] = (found or {}).get("items", [])
        return [_event(event) for event in items if uid in ("", event["involvedObject"].get("uid"))]

    async def _try(self, answer: Awaitable[_T], verb: str) -> _T:
        try:
            return await answer
        except RefusedError as error:
            raise explain_refusal(error, self._access, verb) from error

    def _place(self, run: AlignmentRun) -> RunPlace:
        name, context = run.metadata.name, self._access.context
        options = [f"-n {self.namespace}", *([f"--context {self._choice.context}"] if self._choice.context else [])]
        return RunPlace(
            title=f"namespace {self.namespace}" + (f", context {context}" if context else ""),
            files=f"PersistentVolumeClaim {claim_name(run)}, folder /{name}",
            arguments=" ".join([name, *options]),
            is_cluster=True,
        )


def _listed(stored: KubernetesObject) -> ListedRun:
    try:
        run = parse_run(stored)
    except InvalidRunError as error:
        known = stored_run(stored)
        return ListedRun(known.name, known.namespace, known.status, None, is_cluster=True, problem=str(error))
    status = lighten(run.status)
    run = run.model_copy(update={"status": status})
    return ListedRun(run.metadata.name, run.metadata.namespace, status, run, is_cluster=True)


def _event(event: KubernetesObject) -> RunEvent:
    """A core/v1 Event; its time stands in one of four fields, as the API that wrote it has it."""
    series: dict[str, Any] = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    time = next((text for text in times if text), event["metadata"].get("creationTimestamp"))
    about = event["involvedObject"]
    return RunEvent(
        time=parse_time(time) if time else datetime.min.replace(tzinfo=UTC),
        type=EventType.WARNING if event.get("type") == EventType.WARNING else EventType.NORMAL,
        reason=str(event.get("reason") or ""),
        message=str(event.get("message") or ""),
        job=about["name"] if about.get("kind") == "Job" else "",
        count=int(series.get("count") or event.get("count") or 1),
    )


def _logging_pods(jobs: Sequence[_Job], wanted: LogSelection) -> list[LoggingPod]:
    """Pods with a log, by age of their Job, then by index and age."""
    found = []
    for job, pods in sorted(jobs, key=lambda entry: entry[0]["metadata"]["creationTimestamp"]):
        labels = read_job_labels(job["metadata"].get("labels", {}))
        if labels is None or not wanted.matches(step := Step(labels.stage, labels.iteration), labels.attempt):
            continue
        read = sorted(((read_pod(pod), pod["metadata"]) for pod in pods), key=lambda p: (p[0].index, p[0].created))
        for pod, metadata in read:
            if pod.runs or pod.ended is not None:
                origin = LogOrigin(
                    job=job["metadata"]["name"],
                    step=step,
                    attempt=labels.attempt,
                    index=pod.index,
                    has_others=int(job["spec"].get("completions") or 1) > 1,
                )
                found.append(LoggingPod(metadata["namespace"], metadata["name"], origin, pod.ended is not None))
    return found


def _latest_attempt(pods: Sequence[LoggingPod]) -> list[LoggingPod]:
    return [pod for pod in pods if pod.origin.job == pods[-1].origin.job]


def _have(pods: Sequence[LoggingPod]) -> str:
    jobs = list(dict.fromkeys(f"{pod.origin.step}, attempt {pod.origin.attempt}" for pod in pods))
    return f"; it has those of {'; '.join(jobs)}" if jobs else "; none of its pods has started, or all are gone"
