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
    await merge_run(access, run.metadata.name, {"metadata": {"uid": run.metadata.uid}, "spec": dict(fields)}, "patch")


async def merge_run(access: UserAccess, name: str, changes: Mapping[str, Any], verb: str) -> None:
    """Apply a merge patch to a run; `verb` says what a user who may not do so lacks.

    Raises NotAllowedError, RunNotFoundError, ClusterError with the API server's words.
    """
    try:
        changed = await access.api.merge(object_path(RUNS, access.namespace, name), changes)
    except RefusedError as error:
        raise explain_refusal(error, access, f"{verb} alignmentruns in namespace {access.namespace}") from error
    if changed is None:
        raise RunNotFoundError(f"there is no run {name} in namespace {access.namespace} any more.")
