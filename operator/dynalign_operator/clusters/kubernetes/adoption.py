"""Whether an object that is there already is the one that would have been made. Pure.

An owner reference proves nothing by itself: a user who may create objects in the namespace may write any. What a run
mounts or talks through has to have the very contents that the planner has decided.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from dynalign_operator.manifests.objects import KubernetesObject


def find_difference(manifest: KubernetesObject, found: KubernetesObject) -> str | None:
    """The field in which an existing object is not what `manifest` says; None when it may be used."""
    compare = _COMPARISONS.get(manifest["kind"])
    return None if compare is None else compare(manifest, found)


def _of_config_map(manifest: KubernetesObject, found: KubernetesObject) -> str | None:
    if found.get("binaryData"):
        return "binaryData"
    return None if found.get("data") == manifest["data"] else "data"


def _of_service(manifest: KubernetesObject, found: KubernetesObject) -> str | None:
    wanted, there = manifest["spec"], found.get("spec", {})
    for name in ("selector", "clusterIP", "publishNotReadyAddresses"):
        if there.get(name) != wanted[name]:
            return f"spec.{name}"
    if there.get("externalIPs") or there.get("type", "ClusterIP") != "ClusterIP":
        return "spec.type"
    return None if _ports(there) == _ports(wanted) else "spec.ports"


def _of_volume_claim(manifest: KubernetesObject, found: KubernetesObject) -> str | None:
    """A claim's size may have grown since, and the cluster fills in what was left open."""
    wanted, there = manifest["spec"], found.get("spec", {})
    if there.get("accessModes") != wanted["accessModes"]:
        return "spec.accessModes"
    if "storageClassName" in wanted and there.get("storageClassName") != wanted["storageClassName"]:
        return "spec.storageClassName"
    return next((f"spec.{name}" for name in ("dataSource", "dataSourceRef", "selector") if there.get(name)), None)


def _ports(spec: Mapping[str, Any]) -> list[int]:
    return [port["port"] for port in spec.get("ports") or ()]


_COMPARISONS: Final[Mapping[str, Callable[[KubernetesObject, KubernetesObject], str | None]]] = {
    "ConfigMap": _of_config_map,
    "Service": _of_service,
    "PersistentVolumeClaim": _of_volume_claim,
}
