"""What an installation lets runs name for their pods; no Job is built without this check."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from dynalign_contract.stages import Stage
from dynalign_operator.api.rollouts import pods_stage, run_overrides
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import PodSettings
from dynalign_operator.planning.errors import NotAllowedError


def check_permissions(run: AlignmentRun, stages: Sequence[Stage], pods: PodSettings) -> None:
    """Raise NotAllowedError for an image or a ServiceAccount of these stages that runs may not name here."""
    for stage in stages:
        overrides, own = run_overrides(run.spec, stage), pods_stage(run.spec, stage)
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
                    f"spec.stages.{own}.{field} is {value}, which runs may not name in this installation (it allows "
                    f"{', '.join(allowed) or 'none'}). Remove it, or have it added to the chart's value "
                    f"trainer.{name}; the run then goes on by itself, at most a minute later."
                )


def _is_allowed(value: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) if pattern.endswith("*") else value == pattern for pattern in allowed)
