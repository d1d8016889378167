"""Objects received from the watches, by kind and key. Own writes are stored at once, so that they can be read.

An operator watches thousands of runs with their finished Jobs and pods, so of each object only the fields that are used
(`projection`) are kept, as compressed JSON. It is decoded on access; what is accessed often (its run, whether it has
ended) is kept beside it.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.projection import (
    is_ended_job,
    is_ended_pod,
    is_ended_run,
    project_job,
    project_pod,
    project_run,
)
from dynalign_operator.manifests.labels import JOB_NAME, RUN
from dynalign_operator.manifests.objects import KubernetesObject


class Kind(StrEnum):
    """Kinds that are watched."""

    RUN = "AlignmentRun"
    JOB = "Job"
    POD = "Pod"


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of an object."""

    uid: str
    number: int
    """Resource versions of one kind grow (KEP-5504 makes comparing them official)."""


@dataclass(frozen=True, slots=True)
class _Record:
    """One stored object."""

    version: Version
    run: RunKey | None
    """The run that it belongs to."""
    has_ended: bool
    """Whether a Job or pod has finished, or a run has and its specification has not changed since."""
    data: bytes

    def decode(self) -> KubernetesObject:
        obj: KubernetesObject = json.loads(zlib.decompress(self.data))
        return obj


_PROJECT: Final = {Kind.RUN: project_run, Kind.JOB: project_job, Kind.POD: project_pod}
_HAS_ENDED: Final = {Kind.RUN: is_ended_run, Kind.JOB: is_ended_job, Kind.POD: is_ended_pod}


@dataclass
class Store:
    """The latest known version of every object."""

    _records: dict[Kind, dict[RunKey, _Record]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    _names: dict[tuple[Kind, RunKey], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Kind and run -> names of the objects that belong to it."""

    def put(self, kind: Kind, obj: KubernetesObject) -> RunKey | None:
        """Keep an object unless a newer version is known; returns the run that it belongs to.

        One whose label now names another run moves there; who it belonged to is found by `run_of_object` before.
        """
        key, run, version = _key(obj), run_of(kind, obj), version_of(obj)
        known = self._records[kind].get(key)
        if known is not None and known.version.uid == version.uid and known.version.number > version.number:
            return run
        if known is not None and known.run != run:
            self._unlink(kind, key, known.run)
        data = zlib.compress(json.dumps(_PROJECT[kind](obj), separators=(",", ":")).encode(), 1)
        self._records[kind][key] = _Record(version, run, _HAS_ENDED[kind](obj), data)
        if run is not None:
            self._names[kind, run].add(key.name)
        return run

    def remove(self, kind: Kind, obj: KubernetesObject) -> RunKey | None:
        """Forget an object; a namesake that was made since stays. Returns the run that it belonged to."""
        key = _key(obj)
        known = self._records[kind].get(key)
        if known is None or known.version.uid != version_of(obj).uid:
            return run_of(kind, obj)
        self.forget(kind, key)
        return known.run

    def forget(self, kind: Kind, key: RunKey) -> None:
        """Forget an object, whichever version is known."""
        known = self._records[kind].pop(key, None)
        if known is not None:
            self._unlink(kind, key, known.run)

    def _unlink(self, kind: Kind, key: RunKey, run: RunKey | None) -> None:
        if run is None:
            return
        names = self._names[kind, run]
        names.discard(key.name)
        if not names:
            del self._names[kind, run]

    def get(self, kind: Kind, key: RunKey) -> KubernetesObject | None:
        """One object by namespace and name."""
        known = self._records[kind].get(key)
        return None if known is None else known.decode()

    def version(self, kind: Kind, key: RunKey) -> Version | None:
        """The version that is known of an object."""
        known = self._records[kind].get(key)
        return None if known is None else known.version

    def run_of_object(self, kind: Kind, key: RunKey) -> RunKey | None:
        """The run that a known object belongs to."""
        known = self._records[kind].get(key)
        return None if known is None else known.run

    def is_behind(self, kind: Kind, obj: KubernetesObject) -> bool:
        """Whether this version is newer than the one that is known, or the object not known at all.

        Only the metadata of `obj` are read.
        """
        known, version = self.version(kind, _key(obj)), version_of(obj)
        return known is None or (known.uid == version.uid and known.number < version.number)

    def keys(self, kind: Kind) -> list[RunKey]:
        """Namespace and name of every known object."""
        return list(self._records[kind])

    def objects_of_run(self, kind: Kind, run: RunKey) -> list[KubernetesObject]:
        """The objects of a run, by name."""
        return [record.decode() for record in self._of_run(kind, run)]

    def living_objects_of_run(self, kind: Kind, run: RunKey) -> list[KubernetesObject]:
        """The objects of a run that have not ended, by name."""
        return [record.decode() for record in self._of_run(kind, run) if not record.has_ended]

    def is_settled(self, run: RunKey) -> bool:
        """Whether the run has ended with the specification that it has, and no Job of it lives."""
        known = self._records[Kind.RUN].get(run)
        return known is not None and known.has_ended and all(job.has_ended for job in self._of_run(Kind.JOB, run))

    def runs(self) -> list[RunKey]:
        """Keys of all runs."""
        return sorted(self._records[Kind.RUN], key=lambda key: (key.namespace, key.name))

    def _of_run(self, kind: Kind, run: RunKey) -> Iterator[_Record]:
        for name in sorted(self._names.get((kind, run), ())):
            record = self._records[kind].get(RunKey(run.namespace, name))
            if record is not None:
                yield record


def run_of(kind: Kind, obj: KubernetesObject) -> RunKey | None:
    """The run that an object belongs to; None when it is not of ours."""
    if kind is Kind.RUN:
        return _key(obj)
    name = (obj["metadata"].get("labels") or {}).get(RUN)
    return None if name is None else RunKey(obj["metadata"]["namespace"], name)


def job_of(pod: KubernetesObject) -> str:
    """Name of the Job that a pod belongs to; empty when it has none."""
    name: str = (pod["metadata"].get("labels") or {}).get(JOB_NAME, "")
    return name


def version_of(obj: KubernetesObject) -> Version:
    """The version of an object that the API server has returned."""
    metadata = obj["metadata"]
    return Version(metadata.get("uid", ""), int(metadata.get("resourceVersion") or 0))


def _key(obj: KubernetesObject) -> RunKey:
    return RunKey(obj["metadata"]["namespace"], obj["metadata"]["name"])
