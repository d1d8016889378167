"""Creation of a run and of the ConfigMaps that its file holds, with the user's own rights."""

from collections.abc import Mapping
from typing import Final

from dynalign_operator.api.v1alpha1 import API_VERSION, KIND
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.paths import CONFIG_MAPS, RUNS, Resource, collection_path, object_path
from dynalign_operator.clusters.kubernetes.user_access import UserAccess, explain_refusal
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.runfile.run_file import RunFile

_PLURALS: Final = {RUNS: "alignmentruns", CONFIG_MAPS: "configmaps"}


async def create_run(access: UserAccess, file: RunFile) -> None:
    """Create what a run file holds in the user's namespace; ConfigMaps that are there with the same data are kept.

    Raises ClusterError where one of that name is there with other data, or the API server refuses.
    """
    name = file.run.metadata.name
    for map_name, data in file.config_maps.items():
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map_name}, "data": dict(data)}
        if not await _create(access, CONFIG_MAPS, body) and await _data_of(access, map_name) != dict(data):
            raise ClusterError(
                f"namespace {access.namespace} has a ConfigMap {map_name} with other data; rename that of the file, or "
                "`kubectl apply` it if its runs may change."
            )
    spec = file.run.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    if not await _create(access, RUNS, body):
        raise ClusterError(
            f"namespace {access.namespace} has a run {name} already; look at it with Run.open, or rename the file's."
        )


async def _create(access: UserAccess, resource: Resource, body: KubernetesObject) -> bool:
    """Whether the object was created: False where one of that name is there."""
    try:
        created = await access.api.create(collection_path(resource, access.namespace), body)
    except RefusedError as error:
        verb = f"create {_PLURALS[resource]} in namespace {access.namespace}"
        raise explain_refusal(error, access, verb) from error
    return created is not None


async def _data_of(access: UserAccess, name: str) -> Mapping[str, str]:
    try:
        found = await access.api.get(object_path(CONFIG_MAPS, access.namespace, name))
    except RefusedError as error:
        verb = f"get configmaps in namespace {access.namespace}"
        raise explain_refusal(error, access, verb) from error
    return (found or {}).get("data") or {}
