"""The PersistentVolumeClaims of a run: the one that holds it, and those that it only reads from."""

from collections.abc import Mapping

from dynalign_contract.sources import claim_of
from dynalign_contract.stages import Stage, stages_of_job
from dynalign_operator.api.rollouts import pods_stage, run_overrides
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.labels import run_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata


def claim_name(run: AlignmentRun) -> str:
    """Name of the claim: the user's own, or the run's."""
    return run.spec.storage.existing_claim or run.metadata.name


def foreign_claims(run: AlignmentRun, stage: Stage) -> Mapping[str, str]:
    """Claims of the user's own that a stage reads from: name -> the field that names it, by name."""
    supplied, decontamination = run.spec.prompts.supplied, run.spec.prompts.decontamination
    files = {
        "spec.prompts.decontamination.uri": decontamination.uri,
        "spec.prompts.supplied.uri": supplied.uri if supplied is not None else None,
    }
    by_stage: Mapping[Stage, Mapping[str, str | None]] = {
        Stage.FETCH: {"spec.model.uri": run.spec.model.uri, **files},  # it checks the files before anything else works
        Stage.PROMPTS: files,
    }
    uris = [entry for work in stages_of_job(stage) for entry in by_stage.get(work, {}).items()]
    found = {claim: field for field, uri in uris if (claim := claim_of(uri)) is not None}
    return dict(sorted(found.items()))


def claims_of(run: AlignmentRun, *stages: Stage) -> Mapping[str, str]:
    """All claims of the user's own that these stages mount, or any stage: name -> the field that names it."""
    foreign = {name: field for stage in stages or Stage for name, field in foreign_claims(run, stage).items()}
    foreign |= {name: field for stage in stages or Stage for name, field in _extra_claims(run, stage).items()}
    existing = run.spec.storage.existing_claim
    return foreign if existing is None else {**foreign, existing: "spec.storage.existingClaim"}


def _extra_claims(run: AlignmentRun, stage: Stage) -> Mapping[str, str]:
    field = f"spec.stages.{pods_stage(run.spec, stage)}.volumes"
    return {
        volume.persistent_volume_claim.claim_name: field
        for volume in run_overrides(run.spec, stage).volumes
        if volume.persistent_volume_claim is not None
    }


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
