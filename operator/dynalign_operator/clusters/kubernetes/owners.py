"""Which objects are a run's own. Labels say what an object is of, owner references prove it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.store import Kind, Store, job_of
from dynalign_operator.manifests.objects import KubernetesObject


def jobs_of_run(store: Store, key: RunKey, jobs: Iterable[KubernetesObject]) -> list[KubernetesObject]:
    """Select the Jobs that this run owns; those of an earlier run of its name have another uid."""
    run = store.version(Kind.RUN, key)
    return [job for job in jobs if run is not None and run.uid and run.uid in _owners(job)]


def pods_by_job(
    pods: Iterable[KubernetesObject], jobs: Sequence[KubernetesObject]
) -> dict[str, list[KubernetesObject]]:
    """Name of each Job -> those of these pods that it controls, whatever labels others wear."""
    uids = {job["metadata"]["name"]: job["metadata"].get("uid", "") for job in jobs}
    found: dict[str, list[KubernetesObject]] = {name: [] for name in uids}
    for pod in pods:
        job = job_of(pod)
        if is_controlled_by(pod, uids.get(job, "")):
            found[job].append(pod)
    return found


def is_controlled_by(obj: KubernetesObject, uid: str) -> bool:
    """Whether the object's controller is the one with this uid. An API server lets an object have one controller."""
    owners: Iterable[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or ()
    return bool(uid) and any(owner.get("controller") is True and owner.get("uid") == uid for owner in owners)


def _owners(obj: KubernetesObject) -> list[str]:
    return [owner.get("uid", "") for owner in obj["metadata"].get("ownerReferences") or ()]
