"""The environment of a stage's container: the site's variables, the run's, and dynalign's own, the strongest last."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.environment import EnvironmentVariable
from dynalign_contract.layout import COMPILED_FOLDER
from dynalign_contract.pod_paths import CACHE_MOUNT, METRICS_PORT, RUN_MOUNT, TMP_MOUNT, TRUST_MOUNT, Variable
from dynalign_contract.proxies import CLUSTER, NO_PROXY, PROXY_VARIABLES, both_cases, joined_hosts
from dynalign_contract.stages import ONLINE_STAGES, SIDE_STAGES, Stage
from dynalign_operator.api.pods import StageOverrides
from dynalign_operator.api.trace_ids import traceparent
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.overrides import grace_seconds
from dynalign_operator.manifests.secrets import secret_variables

TRUST_FILE: Final = f"{TRUST_MOUNT}/ca-bundle.crt"

_USER: Final = "dynalign"
_CACHES: Final = {
    Variable.CACHE: "",
    Variable.COMPILED_BY_INDUCTOR: "/torchinductor",
    Variable.COMPILED_BY_TRITON: "/triton",
    Variable.COMPILED_BY_VLLM: "/vllm",
    Variable.HUB_HOME: "/huggingface",
    Variable.TORCH_EXTENSIONS: "/torch-extensions",
}
"""Below the pod's own cache: not all of these libraries write beside and rename, so no two pods share a folder."""


def build_environment(
    run: AlignmentRun, config: StageConfig, overrides: StageOverrides, settings: BuildSettings, *, gpus: int
) -> list[KubernetesObject]:
    """The list `env`. Names are unique: a variable of dynalign's own replaces any other of its name."""
    plain = _own_variables(run, config, settings, gpus=gpus)
    if config.stage is Stage.TRAIN:
        plain[Variable.GRACE_SECONDS] = str(grace_seconds(config.stage, overrides))
    entries: dict[str, KubernetesObject] = {name: {"name": name, "value": value} for name, value in plain.items()}
    for secret in secret_variables(run, config.stage):
        reference = {"secretKeyRef": {"name": secret.reference.name, "key": secret.reference.key}}
        entries[secret.variable] = {"name": secret.variable, "valueFrom": reference}
    others = {name: {"name": name, "value": value} for name, value in _site_variables(config, settings.pods).items()}
    for variable in (*settings.pods.env, *overrides.env):
        others |= {entry["name"]: entry for entry in _user_entries(variable)}
    return [*entries.values(), *(entry for name, entry in others.items() if name not in entries)]


def plain_variables(environment: list[KubernetesObject]) -> dict[str, str]:
    """Name -> value of the variables whose values the manifest holds."""
    return {entry["name"]: entry["value"] for entry in environment if "value" in entry}


def shares_compiled(run: AlignmentRun, settings: PodSettings) -> bool:
    """Whether compiled code travels over the run's volume: never over a claim to which others may write."""
    return settings.share_compiled and run.spec.storage.existing_claim is None


def _own_variables(run: AlignmentRun, config: StageConfig, settings: BuildSettings, *, gpus: int) -> dict[str, str]:
    variables = {Variable.METRICS_PORT: str(METRICS_PORT)}
    variables |= {name: CACHE_MOUNT + path for name, path in sorted(_CACHES.items())}
    if config.stage not in ONLINE_STAGES:
        variables[Variable.HUB_OFFLINE] = "1"
    if shares_compiled(run, settings.pods) and config.stage not in SIDE_STAGES:
        variables[Variable.COMPILED_ARCHIVES] = f"{RUN_MOUNT}/{run.metadata.name}/{COMPILED_FOLDER}"
        variables[Variable.IMAGE] = settings.trainer_image
    if settings.are_stages_traced:
        variables["TRACEPARENT"] = traceparent(run, config.stage, config.iteration, config.attempt)
    # A uid that the image does not know has no home and no name, for which torch and others ask.
    variables |= {"HOME": TMP_MOUNT, "LOGNAME": _USER, "USER": _USER}
    if not gpus:
        # Images for CUDA ask for all GPUs; where NVIDIA's runtime is the default, a pod would see them unallocated.
        variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    return variables


def _site_variables(config: StageConfig, pods: PodSettings) -> dict[str, str]:
    variables: dict[str, str] = {}
    proxies = {"HTTP_PROXY": pods.proxy.http, "HTTPS_PROXY": pods.proxy.https}
    if any(proxies.values()):
        found = {name: address for name, address in proxies.items() if address is not None}
        variables |= both_cases({**found, NO_PROXY: joined_hosts(",".join((*CLUSTER, *pods.proxy.no_proxy)))})
    if pods.ca_bundle is not None:
        variables |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), TRUST_FILE)
    if pods.hub_endpoint is not None and config.stage in ONLINE_STAGES:
        variables[Variable.HUB_ENDPOINT] = pods.hub_endpoint
    return variables


def _user_entries(variable: EnvironmentVariable) -> list[KubernetesObject]:
    """The variable; one that names a proxy in both its spellings, so that the site's other one does not remain."""
    is_proxy = variable.name.upper() in (*PROXY_VARIABLES, NO_PROXY)
    names = (variable.name.upper(), variable.name.lower()) if is_proxy else (variable.name,)
    if variable.value_from is not None:
        reference = variable.value_from.secret_key_ref
        source = {"secretKeyRef": {"name": reference.name, "key": reference.key}}
        return [{"name": name, "valueFrom": source} for name in names]
    return [{"name": name, "value": variable.value or ""} for name in names]
