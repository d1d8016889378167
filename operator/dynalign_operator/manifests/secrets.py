"""Which Secrets a stage's pods see, and in which environment variables. No value of a Secret is ever read here."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointSettings, EndpointUse
from dynalign_contract.pod_paths import Variable
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun

SECRET_VARIABLES: Final = frozenset(
    {Variable.HUB_TOKEN, JUDGE_ENDPOINT.variable, *(agent_endpoint(role).variable for role in Role)}
)
"""Every variable that may hold a secret; no stage gets one that its manifest does not ask for."""


@dataclass(frozen=True)
class SecretVariable:
    """A variable of a stage's pods whose value comes from a Secret."""

    variable: str
    field: str
    """Of the run file."""
    reference: SecretKeyRef


def secret_variables(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Those of a stage: the hub's token for fetch, and the keys of the endpoints that the stage talks to."""
    if stage is Stage.FETCH:
        token = run.spec.model.token_secret_ref
        return () if token is None else (SecretVariable(Variable.HUB_TOKEN, "spec.model.tokenSecretRef", token),)
    return tuple(
        SecretVariable(use.variable, f"spec.{use.field}.apiKeySecretRef", endpoint.api_key_secret_ref)
        for use, endpoint in _endpoints(run)
        if use.stage is stage and endpoint is not None and endpoint.api_key_secret_ref is not None
    )


def _endpoints(run: AlignmentRun) -> list[tuple[EndpointUse, EndpointSettings | None]]:
    """Every endpoint that may play a part in a run."""
    agents = run.spec.prompts.agents.by_role
    judge = run.spec.evaluation.win_rate.endpoint
    return [*((agent_endpoint(role), agent.endpoint) for role, agent in agents.items()), (JUDGE_ENDPOINT, judge)]
