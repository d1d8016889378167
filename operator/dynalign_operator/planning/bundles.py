"""Build the objects that run a step."""

from pydantic import ValidationError

from dynalign_contract.config import StageConfig
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.config_map import build_config_map
from dynalign_operator.manifests.job import build_job
from dynalign_operator.manifests.network_policy import build_network_policy
from dynalign_operator.manifests.service import build_service
from dynalign_operator.manifests.volume import build_volume_claim
from dynalign_operator.planning.errors import UnfitStatusError
from dynalign_operator.planning.names import job_name
from dynalign_operator.planning.objectives import read_objective
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.permissions import check_permissions
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.stage_configs import build_report_config, build_stage_config


def build_bundle(
    observed: Observed, status: AlignmentRunStatus, step: Step, attempt: int, settings: BuildSettings
) -> JobBundle:
    """The Job of one attempt, with its ConfigMap and NetworkPolicy, the run's volume and Service.

    Raises PlanningError.
    """
    # fetch is held for what any stage names, so that it is known before hours of work
    check_permissions(observed.run, tuple(Stage) if step.stage is Stage.FETCH else (step.stage,), settings.pods)
    objective = read_objective(observed)
    try:
        config = build_stage_config(observed.run, status, step, attempt, objective)
    except ValidationError as error:
        raise UnfitStatusError(step, error) from error
    return _bundle(observed.run, config, step, settings)


def build_report_bundle(run: AlignmentRun, iteration: int | None, attempt: int, settings: BuildSettings) -> JobBundle:
    """The Job of one attempt of the report, about the run as it is with its status. Raises PlanningError."""
    check_permissions(run, (Stage.REPORT,), settings.pods)
    try:
        config = build_report_config(run, iteration, attempt)
    except ValidationError as error:
        raise UnfitStatusError(Stage.REPORT, error) from error
    return _bundle(run, config, Step(Stage.REPORT), settings)


def _bundle(run: AlignmentRun, config: StageConfig, step: Step, settings: BuildSettings) -> JobBundle:
    name = job_name(run.metadata.name, step, config.attempt)
    return JobBundle(
        name=name,
        step=step,
        attempt=config.attempt,
        job=build_job(run, config, name, settings),
        config_map=build_config_map(run, config, name),
        volume_claim=build_volume_claim(run),
        service=build_service(run, config),
        network_policy=build_network_policy(run, config, settings),
    )
