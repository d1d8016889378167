"""Checks of the user's own claims before a Job that mounts them is created."""

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AccessMode, AlignmentRun
from dynalign_operator.manifests.volume import claims_of
from dynalign_operator.planning.errors import MissingClaimError, VolumeNotSharedError
from dynalign_operator.planning.observed import ClaimObservation, Observed, Step


def check_claims(observed: Observed, step: Step) -> None:
    """Raise MissingClaimError or VolumeNotSharedError where a step's Job could not run on these claims.

    Fetch comes first and waits for all of them, so that a missing one is found before hours of work.
    """
    run, claims = observed.run, observed.claims
    if claims is None:
        return
    stages = tuple(Stage) if step.stage is Stage.FETCH else (step.stage,)
    for name, field in claims_of(run, *stages).items():
        if name not in claims:
            raise MissingClaimError(
                f"{field} names the PersistentVolumeClaim {name}, which does not exist in namespace "
                f"{run.metadata.namespace}. Create it; the run goes on by itself, at most a minute later."
            )
    existing = run.spec.storage.existing_claim
    if existing is not None:
        _check_shared(run, existing, claims[existing])


def _check_shared(run: AlignmentRun, name: str, claim: ClaimObservation) -> None:
    """Raise VolumeNotSharedError if several pods need a claim that is not ReadWriteMany."""
    fields = {"spec.training.nodes": run.spec.training.nodes, "spec.generation.shards": run.spec.generation.shards}
    several = [f"{field} is {count}" for field, count in fields.items() if count > 1]
    if several and AccessMode.READ_WRITE_MANY not in claim.access_modes:
        raise VolumeNotSharedError(
            f"the PersistentVolumeClaim {name} offers {' and '.join(sorted(claim.access_modes)) or 'no access mode'}, "
            f"but {' and '.join(several)}, and these pods mount it from several nodes at once. Set "
            f"{' and '.join(fields)} to 1, or apply the run under another name with a claim that offers "
            f"{AccessMode.READ_WRITE_MANY}."
        )
