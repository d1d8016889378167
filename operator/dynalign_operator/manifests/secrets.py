"""Which Secrets a stage's pods see, and in which environment variables. No value of a Secret is ever read here."""

import re
from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointUse, ServerSettings
from dynalign_contract.pod_paths import Variable
from dynalign_contract.references import CredentialsRef, SecretKeyRef
from dynalign_contract.settings import (
    JUDGE_KEY_VARIABLES,
    MLFLOW_ENDPOINT,
    PUBLISH_KEY_VARIABLES,
    REWARD_KEY_VARIABLES,
    HubTarget,
    judge_endpoint,
    publish_credentials,
    publish_token,
    reward_endpoint,
)
from dynalign_contract.stages import Stage
from dynalign_contract.stores import MODEL_CREDENTIALS, CredentialVariables
from dynalign_operator.api.rollouts import pods_stage, run_overrides
from dynalign_operator.api.v1alpha1 import AlignmentRun

SECRET_VARIABLES: Final = frozenset(
    {
        *(Variable.HUB_TOKEN, *MODEL_CREDENTIALS.names, MODEL_CREDENTIALS.docker_config),
        *(JUDGE_ENDPOINT.variable, MLFLOW_ENDPOINT.variable),
        *(agent_endpoint(role).variable for role in Role),
    }
)
"""Variables that may hold a secret, beside those that are named after rewards, judges and places to publish to."""


_NOTIFY_KEY_VARIABLES: Final = r"DYNALIGN_NOTIFY_[0-9]+_KEY"


def may_hold_secret(variable: str) -> bool:
    """Whether an environment variable may hold a secret; no stage gets one that its manifest does not ask for."""
    named = (REWARD_KEY_VARIABLES, JUDGE_KEY_VARIABLES, _NOTIFY_KEY_VARIABLES, PUBLISH_KEY_VARIABLES)
    return variable in SECRET_VARIABLES or any(re.fullmatch(pattern, variable) for pattern in named)


@dataclass(frozen=True)
class SecretVariable:
    """A variable of a stage's pods whose value comes from a Secret."""

    variable: str
    field: str
    """Field of the run file."""
    reference: SecretKeyRef


def environment_secrets(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Variables of `spec.stages.<stage>.env` whose values come from Secrets."""
    overrides, field = run_overrides(run.spec, stage), f"spec.stages.{pods_stage(run.spec, stage)}.env"
    return tuple(
        SecretVariable(variable.name, f"{field}[{i}].valueFrom.secretKeyRef", source.secret_key_ref)
        for i, variable in enumerate(overrides.env)
        if (source := variable.value_from) is not None
    )


def secret_variables(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Secrets that dynalign gives to a stage: for fetch those of the model's source, for export those of the places to
    publish to, and the keys of the servers that a stage asks."""
    by_stage = {Stage.FETCH: _model_secrets, Stage.EXPORT: _publish_secrets}
    stores = by_stage[stage](run) if stage in by_stage else ()
    return (*stores, *endpoint_secrets(run, stage))


def _model_secrets(run: AlignmentRun) -> tuple[SecretVariable, ...]:
    model = run.spec.model
    token = model.token_secret_ref
    hub = () if token is None else (SecretVariable(Variable.HUB_TOKEN, "spec.model.tokenSecretRef", token),)
    return (*hub, *_pair("spec.model", model.credentials_secret_ref, MODEL_CREDENTIALS))


def _publish_secrets(run: AlignmentRun) -> tuple[SecretVariable, ...]:
    found: list[SecretVariable] = []
    for index, target in enumerate(run.spec.export.publish):
        at = f"spec.export.publish[{index}].{target.kind}"
        if isinstance(target.place, HubTarget):
            token = target.place.token_secret_ref
            found.append(SecretVariable(publish_token(index), f"{at}.tokenSecretRef", token))
        elif target.place is not None:
            found += _pair(at, target.place.credentials_secret_ref, publish_credentials(index))
    return tuple(found)


def _pair(at: str, reference: CredentialsRef | None, variables: CredentialVariables) -> tuple[SecretVariable, ...]:
    """User name and password of a reference, or the Docker configuration in their place, in these variables."""
    if reference is None:
        return ()
    field = f"{at}.credentialsSecretRef"
    if reference.docker_config is not None:
        return (SecretVariable(variables.docker_config, field, reference.docker_config),)
    return (
        SecretVariable(variables.username, field, reference.username),
        SecretVariable(variables.password, field, reference.password),
    )


def endpoint_secrets(run: AlignmentRun, stage: Stage) -> tuple[SecretVariable, ...]:
    """Keys of the servers that a stage asks."""
    return tuple(
        SecretVariable(use.variable, f"spec.{use.field}.apiKeySecretRef", endpoint.api_key_secret_ref)
        for use, endpoint in endpoints_of(run)
        if use.is_asked_by(stage) and endpoint.api_key_secret_ref is not None
    )


def notify_variable(index: int) -> str:
    """Variable from which `dynalign run` takes the key of a webhook's signature; no stage sees it."""
    return f"DYNALIGN_NOTIFY_{index}_KEY"


def notify_secrets(run: AlignmentRun) -> tuple[SecretVariable, ...]:
    """Keys with which notifications are signed."""
    return tuple(
        SecretVariable(notify_variable(index), f"spec.notify[{index}].secretRef", webhook.secret_ref)
        for index, webhook in enumerate(run.spec.notify)
    )


def endpoints_of(run: AlignmentRun) -> list[tuple[EndpointUse, ServerSettings]]:
    """Every server that plays a part in a run."""
    agents = run.spec.prompts.agents.by_role
    evaluation = run.spec.evaluation.win_rate.endpoint
    named: list[tuple[EndpointUse, ServerSettings | None]] = [
        *((agent_endpoint(role), agent.endpoint) for role, agent in agents.items()),
        *((reward_endpoint(index, reward), reward.endpoint) for index, reward in enumerate(run.spec.rewards)),
        *((judge_endpoint(index, judge), judge.endpoint) for index, judge in enumerate(run.spec.judging.judges)),
        (JUDGE_ENDPOINT, evaluation),
        (MLFLOW_ENDPOINT, run.spec.tracking.mlflow),
    ]
    return [(use, endpoint) for use, endpoint in named if endpoint is not None]
