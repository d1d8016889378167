"""What the watches have told, by kind and key. Own writes go in at once, so that what was written can be read."""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.manifests.labels import RUN
from dynalign_operator.manifests.objects import KubernetesObject

JOB_NAME: Final = "batch.kubernetes.io/job-name"
"""Label of a Job's pods."""


class Kind(StrEnum):
    """Kinds that are watched."""

    RUN = "AlignmentRun"
    JOB = "Job"
    POD = "Pod"


@dataclass
class Store:
    """The latest known version of every object."""

    _objects: dict[Kind, dict[RunKey, KubernetesObject]] = field(default_factory=lambda: defaultdict(dict))
    _names: dict[tuple[Kind, RunKey], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Kind and run -> names of the objects that belong to it."""

    def put(self, kind: Kind, thing: KubernetesObject) -> RunKey | None:
        """Keep an object unless a newer version is known; returns the run that it belongs to."""
        key, run = _key(thing), run_of(kind, thing)
        known = self._objects[kind].get(key)
        if known is None or _version(known) <= _version(thing) or _uid(known) != _uid(thing):
            self._objects[kind][key] = thing
            if run is not None:
                self._names[kind, run].add(key.name)
        return run

    def remove(self, kind: Kind, thing: KubernetesObject) -> RunKey | None:
        """Forget an object; a namesake that was made since stays. Returns the run that it belonged to."""
        key, run = _key(thing), run_of(kind, thing)
        known = self._objects[kind].get(key)
        if known is not None and _uid(known) == _uid(thing):
            del self._objects[kind][key]
            if run is not None:
                self._names[kind, run].discard(key.name)
        return run

    def get(self, kind: Kind, key: RunKey) -> KubernetesObject | None:
        """One object by namespace and name."""
        return self._objects[kind].get(key)

    def is_behind(self, kind: Kind, thing: KubernetesObject) -> bool:
        """Whether this version is newer than the one that is known, or the object not known at all."""
        known = self._objects[kind].get(_key(thing))
        return known is None or (_uid(known) == _uid(thing) and _version(known) < _version(thing))

    def keys(self, kind: Kind) -> list[RunKey]:
        """Namespace and name of every known object."""
        return list(self._objects[kind])

    def of_run(self, kind: Kind, run: RunKey) -> list[KubernetesObject]:
        """The objects of a run, by name."""
        names = sorted(self._names.get((kind, run), ()))
        return [self._objects[kind][RunKey(run.namespace, name)] for name in names]

    def runs(self) -> list[RunKey]:
        """Keys of all runs."""
        return sorted(self._objects[Kind.RUN], key=lambda key: (key.namespace, key.name))


def run_of(kind: Kind, thing: KubernetesObject) -> RunKey | None:
    """The run that an object belongs to; None when it is not of ours."""
    if kind is Kind.RUN:
        return _key(thing)
    name = (thing["metadata"].get("labels") or {}).get(RUN)
    return None if name is None else RunKey(thing["metadata"]["namespace"], name)


def job_of(pod: KubernetesObject) -> str:
    """Name of the Job that a pod belongs to; empty when it has none."""
    name: str = (pod["metadata"].get("labels") or {}).get(JOB_NAME, "")
    return name


def _key(thing: KubernetesObject) -> RunKey:
    return RunKey(thing["metadata"]["namespace"], thing["metadata"]["name"])


def _uid(thing: KubernetesObject) -> str:
    uid: str = thing["metadata"].get("uid", "")
    return uid


def _version(thing: KubernetesObject) -> int:
    """Resource versions of one kind grow (KEP-5504 makes comparing them official)."""
    return int(thing["metadata"].get("resourceVersion") or 0)
