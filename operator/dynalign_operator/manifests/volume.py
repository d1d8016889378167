"""The PersistentVolumeClaim that holds a run."""

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.labels import run_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata


def claim_name(run: AlignmentRun) -> str:
    """Name of the claim: the user's own, or the run's."""
    return run.spec.storage.existing_claim or run.metadata.name


def build_volume_claim(run: AlignmentRun) -> KubernetesObject | None:
    """The run's claim, deleted with the run; None where the user names a claim of their own, which outlives it."""
    storage = run.spec.storage
    if storage.existing_claim is not None:
        return None
    spec: KubernetesObject = {
        "accessModes": [str(storage.access_mode)],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": build_metadata(run, claim_name(run), run_labels(run.metadata.name)),
        "spec": spec,
    }
