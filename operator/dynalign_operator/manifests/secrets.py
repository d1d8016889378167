"""Which Secrets a stage's pods see, and in which environment variables. No value of a Secret is ever read here."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import Role, api_key_variable
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun

_HUB_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of a variable

SECRET_VARIABLES: Final = frozenset({_HUB_TOKEN, *map(api_key_variable, Role)})
"""Every variable that may hold a secret; no stage gets one that its manifest does not ask for."""


@dataclass(frozen=True)
class SecretVariable:
    """A variable of a stage's pods whose value comes from a Secret."""

    variable: str
    field: str
    """Of the run file."""
    reference: SecretKeyRef


def secret_variables(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Those of a stage: the hub's token for fetch, the keys of the agents' endpoints for prompts."""
    if stage is Stage.FETCH:
        token = run.spec.model.token_secret_ref
        return () if token is None else (SecretVariable(_HUB_TOKEN, "spec.model.tokenSecretRef", token),)
    return _agents(run) if stage is Stage.PROMPTS else ()


def _agents(run: AlignmentRun) -> tuple[SecretVariable, ...]:
    endpoints = {role: agent.endpoint for role, agent in run.spec.prompts.agents.by_role.items()}
    return tuple(
        SecretVariable(
            api_key_variable(role),
            f"spec.prompts.agents.{role}.endpoint.apiKeySecretRef",
            endpoint.api_key_secret_ref,
        )
        for role, endpoint in endpoints.items()
        if endpoint is not None and endpoint.api_key_secret_ref is not None
    )
