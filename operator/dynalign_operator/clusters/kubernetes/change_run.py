"""Changes of a run's specification with the user's own rights."""

from collections.abc import Mapping
from typing import Any

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.paths import RUNS, object_path
from dynalign_operator.clusters.kubernetes.user_access import UserAccess, explain_refusal
from dynalign_operator.clusters.run_source import RunNotFoundError


async def change_run(access: UserAccess, run: AlignmentRun, fields: Mapping[str, Any]) -> None:
    """Set fields of the specification, of this very run: one of the same name that took its place is left alone.

    Raises NotAllowedError, RunNotFoundError, ClusterError with the API server's words.
    """
    name, namespace = run.metadata.name, access.namespace
    path = object_path(RUNS, namespace, name)
    try:
        changed = await access.api.merge(path, {"metadata": {"uid": run.metadata.uid}, "spec": dict(fields)})
    except RefusedError as error:
        raise explain_refusal(error, access, f"patch alignmentruns in namespace {namespace}") from error
    if changed is None:
        raise RunNotFoundError(f"there is no run {name} in namespace {namespace} any more.")
