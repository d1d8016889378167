"""From the events of a watch to intervals. Pure: the events carry the times at which they arrived."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from dynalign_operator.clusters.kubernetes.pods import condition_of, read_pod
from dynalign_operator.clusters.kubernetes.store import job_of
from dynalign_operator.manifests.objects import KubernetesObject


@dataclass(frozen=True)
class Arrival:
    """One event of a watch."""

    at: float
    """When the client had read it, seconds of a monotonic clock."""
    type: str
    """ADDED, MODIFIED or DELETED."""
    thing: KubernetesObject
    """The Job or pod."""

    @property
    def name(self) -> str:
        """The object's name."""
        name: str = self.thing["metadata"]["name"]
        return name


@dataclass(frozen=True)
class Transition:
    """The step from one Job of a run to the next."""

    before: str
    """Name of the Job that completed."""
    after: str
    """Name of the Job that was created."""
    seconds: float


@dataclass(frozen=True)
class KubernetesShare:
    """Seconds of the stages that pass in Kubernetes, not in the operator; one entry a stage in each."""

    job_to_pod: tuple[float, ...]
    """Job created to its pod created."""
    pod_to_start: tuple[float, ...]
    """Pod created to container started, from the API server's timestamps: whole seconds, right in the mean only."""
    pod_to_end: tuple[float, ...]
    """Pod created to the kubelet's word that its container has ended; the stage's own work is in it."""
    end_to_complete: tuple[float, ...]
    """That word to the Job's condition Complete."""


def find_transitions(jobs: Iterable[Arrival]) -> list[Transition]:
    """The transitions among the Jobs of one run, whose events are given in order of arrival.

    From the event in which a Job first has condition Complete to the event that adds the next Job.
    """
    transitions: list[Transition] = []
    completed: dict[str, float] = {}
    waiting: str | None = None
    for arrival in jobs:
        if arrival.type == "ADDED" and waiting is not None:
            transitions.append(Transition(waiting, arrival.name, arrival.at - completed[waiting]))
            waiting = None
        if arrival.name not in completed and has_condition(arrival.thing, "Complete"):
            completed[arrival.name] = arrival.at
            waiting = arrival.name
    return transitions


def find_kubernetes_share(jobs: Iterable[Arrival], pods: Iterable[Arrival]) -> KubernetesShare:
    """What Kubernetes itself needed, over the Jobs that completed with one pod each."""
    jobs, pods = list(jobs), list(pods)
    created = _firsts(jobs, lambda arrival: arrival.type == "ADDED")
    completed = _firsts(jobs, lambda arrival: has_condition(arrival.thing, "Complete"))
    begun = _firsts(pods, lambda arrival: arrival.type == "ADDED", name=_job_of)
    ended = _firsts(pods, lambda arrival: read_pod(arrival.thing).ended is not None, name=_job_of)
    whole = [name for name in completed if name in created and name in begun and name in ended]
    return KubernetesShare(
        job_to_pod=tuple(begun[name].at - created[name].at for name in whole),
        pod_to_start=tuple(_start_seconds(ended[name].thing) for name in whole),
        pod_to_end=tuple(ended[name].at - begun[name].at for name in whole),
        end_to_complete=tuple(completed[name].at - ended[name].at for name in whole),
    )


def has_condition(thing: Mapping[str, Any], kind: str) -> bool:
    """Whether the object has this condition and it is True."""
    return condition_of(thing.get("status", {}), kind) is not None


def _firsts(
    arrivals: Iterable[Arrival], wanted: Callable[[Arrival], bool], name: Callable[[Arrival], str] = attrgetter("name")
) -> dict[str, Arrival]:
    """The first arrival of each name that is wanted."""
    firsts: dict[str, Arrival] = {}
    for arrival in filter(wanted, arrivals):
        firsts.setdefault(name(arrival), arrival)
    return firsts


def _job_of(pod: Arrival) -> str:
    return job_of(pod.thing)


def _start_seconds(pod: KubernetesObject) -> float:
    found = read_pod(pod)
    if found.started is None:
        raise ValueError(f"the pod {pod['metadata']['name']} ended without having started")
    return (found.started - found.created).total_seconds()
