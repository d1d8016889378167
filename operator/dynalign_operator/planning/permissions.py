"""What an installation lets runs name for their pods, before a Job that names it is created."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from dynalign_contract.stages import Stage
from dynalign_operator.api.pods import StageOverrides
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import PodSettings
from dynalign_operator.planning.errors import NotAllowedError
from dynalign_operator.planning.observed import Step


def check_permissions(run: AlignmentRun, step: Step, pods: PodSettings) -> None:
    """Raise NotAllowedError for an image or a ServiceAccount that runs may not name here.

    Fetch comes first and is held for all stages, so that it is known before hours of work.
    """
    for stage in tuple(Stage) if step.stage is Stage.FETCH else (step.stage,):
        overrides: StageOverrides = getattr(run.spec.stages, stage)
        for field, name, value, allowed in (
            ("image", "allowedImages", overrides.image, pods.allowed_images),
            (
                "serviceAccountName",
                "allowedServiceAccounts",
                overrides.service_account_name,
                pods.allowed_service_accounts,
            ),
        ):
            if value is not None and not _is_allowed(value, allowed):
                raise NotAllowedError(
                    f"spec.stages.{stage}.{field} is {value}, which runs may not name in this installation (it allows "
                    f"{', '.join(allowed) or 'none'}). Remove it, or have it added to the chart's value "
                    f"trainer.{name}; the run then goes on by itself, at most a minute later."
                )


def _is_allowed(value: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) if pattern.endswith("*") else value == pattern for pattern in allowed)
