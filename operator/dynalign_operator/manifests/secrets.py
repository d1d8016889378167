"""Which Secrets a stage's pods see, and in which environment variables. No value of a Secret is ever read here."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointSettings, EndpointUse
from dynalign_contract.pod_paths import Variable
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun, StageOverrides

SECRET_VARIABLES: Final = frozenset(
    {Variable.HUB_TOKEN, JUDGE_ENDPOINT.variable, *(agent_endpoint(role).variable for role in Role)}
)
"""Every variable that may hold a secret; no stage gets one that its manifest does not ask for."""


@dataclass(frozen=True)
class SecretVariable:
    """A variable of a stage's pods whose value comes from a Secret."""

    variable: str
    field: str
    """Field of the run file."""
    reference: SecretKeyRef


def environment_secrets(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Variables of `spec.stages.<stage>.env` whose values come from Secrets."""
    overrides: StageOverrides = getattr(run.spec.stages, stage)
    return tuple(
        SecretVariable(variable.name, f"spec.stages.{stage}.env[{i}].valueFrom.secretKeyRef", source.secret_key_ref)
        for i, variable in enumerate(overrides.env)
        if (source := variable.value_from) is not None
    )


def secret_variables(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Secrets that dynalign gives to a stage: the hub's token for fetch, and the keys of the stage's endpoints."""
    if stage is Stage.FETCH:
        token = run.spec.model.token_secret_ref
        return () if token is None else (SecretVariable(Variable.HUB_TOKEN, "spec.model.tokenSecretRef", token),)
    return tuple(
        SecretVariable(use.variable, f"spec.{use.field}.apiKeySecretRef", endpoint.api_key_secret_ref)
        for use, endpoint in endpoints_of(run)
        if use.stage is stage and endpoint.api_key_secret_ref is not None
    )


def endpoints_of(run: AlignmentRun) -> list[tuple[EndpointUse, EndpointSettings]]:
    """Every endpoint that plays a part in a run."""
    agents = run.spec.prompts.agents.by_role
    judge = run.spec.evaluation.win_rate.endpoint
    named = [*((agent_endpoint(role), agent.endpoint) for role, agent in agents.items()), (JUDGE_ENDPOINT, judge)]
    return [(use, endpoint) for use, endpoint in named if endpoint is not None]
