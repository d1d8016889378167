"""An API server that is a dictionary: for what has to be seen in order, and for answers that no real one gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from dynalign_operator.clusters.errors import ConflictError, GoneError
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.manifests.objects import KubernetesObject

_WATCHED = {"alignmentruns": Kind.RUN, "jobs": Kind.JOB, "pods": Kind.POD}


class MemoryApi(KubeApi):
    """Objects by path. What is written is told to `store`, as watches would."""

    def __init__(self, store: Store) -> None:
        super().__init__(None)
        self.store = store
        self.objects: dict[str, KubernetesObject] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path, in order."""
        self._version = 0

    def seed(self, collection: str, thing: KubernetesObject) -> KubernetesObject:
        """Somebody has created an object."""
        self._version += 1
        stored = deepcopy(thing)
        stored["metadata"].setdefault("uid", f"uid-{self._version}")
        stored["metadata"]["resourceVersion"] = str(self._version)
        stored["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects[f"{collection}/{stored['metadata']['name']}"] = stored
        self._tell(collection, stored)
        return stored

    def _tell(self, collection: str, thing: KubernetesObject) -> None:
        kind = _WATCHED.get(collection.rpartition("/")[2])
        if kind is not None:
            self.store.put(kind, deepcopy(thing))

    async def get(self, path: str, *, metadata_only: bool = False) -> KubernetesObject | None:
        self.requests.append(("GET", path))
        if path in self.objects:
            return deepcopy(self.objects[path])
        collection = path.partition("?")[0]
        items = [deepcopy(o) for name, o in self.objects.items() if name.rpartition("/")[0] == collection]
        return {"items": items} if items or "?" in path else None

    async def create(self, path: str, body: KubernetesObject) -> KubernetesObject | None:
        self.requests.append(("POST", path))
        if f"{path}/{body['metadata'].get('name')}" in self.objects:
            return None
        if "name" not in body["metadata"]:  # an event
            return body
        return self.seed(path, body)

    async def set_owner(self, path: str, owner: Mapping[str, Any]) -> None:
        self.requests.append(("PATCH", path))
        self.objects[path]["metadata"]["ownerReferences"] = [dict(owner)]

    async def delete(self, path: str, *, propagation: str) -> None:
        self.requests.append(("DELETE", path))
        gone = self.objects.pop(path, None)
        kind = _WATCHED.get(path.rpartition("/")[0].rpartition("/")[2])
        if gone is not None and kind is not None:
            self.store.remove(kind, gone)

    async def replace_status(self, path: str, version: str, status: Mapping[str, Any]) -> KubernetesObject:
        return self._patch(path, version, lambda thing: {**thing, "status": dict(status)})

    async def replace_conditions(self, path: str, version: str, conditions: Sequence[Any]) -> KubernetesObject:
        return self._patch(
            path, version, lambda thing: {**thing, "status": {**thing["status"], "conditions": list(conditions)}}
        )

    def _patch(self, path: str, version: str, change: Any) -> KubernetesObject:
        self.requests.append(("PATCH", path))
        path = path.removesuffix("/status")
        known = self.objects.get(path)
        if known is None:
            raise GoneError(path)
        if known["metadata"]["resourceVersion"] != version:
            raise ConflictError(path)
        return self.seed(path.rpartition("/")[0], change(known))

    def run(self, name: str, namespace: str = "team") -> KubernetesObject:
        """A run as it is stored."""
        return self.objects[f"/apis/dynalign.io/v1alpha1/namespaces/{namespace}/alignmentruns/{name}"]

    def conditions(self, name: str, namespace: str = "team") -> dict[str, tuple[str, str, str]]:
        """Type -> status, reason and message of a run's conditions."""
        found = self.run(name, namespace).get("status", {}).get("conditions", [])
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found}

    def names(self, plural: str) -> list[str]:
        """Names of all objects of a kind."""
        return sorted(o["metadata"]["name"] for path, o in self.objects.items() if path.split("/")[-2] == plural)
