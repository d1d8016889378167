"""The pod of a stage: restricted Pod Security, its mounts, its environment."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import COMPILED_FOLDER
from dynalign_contract.pod_paths import (
    CACHE_MOUNT,
    CLAIMS_MOUNT,
    CONFIG_MOUNT,
    METRICS_PORT,
    RENDEZVOUS_PORT,
    RUN_MOUNT,
    SHARED_MEMORY_MOUNT,
    TERMINATION_LOG,
    TMP_MOUNT,
    Variable,
)
from dynalign_contract.stages import ONLINE_STAGES, Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun, StageOverrides
from dynalign_operator.manifests.config_map import CONFIG_FILE
from dynalign_operator.manifests.labels import JobLabels, job_labels
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.secrets import secret_variables
from dynalign_operator.manifests.service import coordinator, service_name
from dynalign_operator.manifests.volume import claim_name, foreign_claims

CONTAINER: Final = "stage"
COMMAND: Final = "dynalign-stage"
GPU: Final = "nvidia.com/gpu"

_USER: Final = 1000
_SHARED_MEMORY: Final = "8Gi"
"""Upper limit of /dev/shm, through which NCCL and vLLM's workers talk; only pages in use count."""
_GRACE_SECONDS: Final = {Stage.TRAIN: 120}
"""Training saves a checkpoint after SIGTERM; the other stages only finish a step."""
_DEFAULT_GRACE_SECONDS: Final = 30

_POD_CACHES: Final = {
    Variable.CACHE: "",
    Variable.HUB_HOME: "/huggingface",
    Variable.TORCH_EXTENSIONS: "/torch-extensions",  # its locks outlive a killed pod
}
_RUN_CACHES: Final = {
    Variable.COMPILED_BY_INDUCTOR: "/torchinductor",
    Variable.COMPILED_BY_TRITON: "/triton",
    Variable.COMPILED_BY_VLLM: "/vllm",
}
"""On the run's volume: what one stage has compiled, the others find. All three write beside and rename."""


@dataclass(frozen=True)
class BuildSettings:
    """What the installation decides, not the run."""

    trainer_image: str = "dynalign-trainer:0.1.0"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the run's namespace."""


def compiled_mount(run: str) -> str:
    """Folder of the run's compile caches, as its pods see it."""
    return f"{RUN_MOUNT}/{run}/{COMPILED_FOLDER}"


def build_pod_template(run: AlignmentRun, config: StageConfig, name: str, settings: BuildSettings) -> KubernetesObject:
    """The pod template of the Job `name`, whose ConfigMap has the same name."""
    overrides: StageOverrides = getattr(run.spec.stages, config.stage)
    labels = job_labels(JobLabels(run.metadata.name, config.stage, config.iteration, config.attempt))
    metadata: KubernetesObject = {"labels": {**overrides.pod_labels, **labels}}
    if overrides.pod_annotations:
        metadata["annotations"] = dict(overrides.pod_annotations)
    return {"metadata": metadata, "spec": _build_spec(run, config, name, overrides, settings)}


def _build_spec(
    run: AlignmentRun, config: StageConfig, name: str, overrides: StageOverrides, settings: BuildSettings
) -> KubernetesObject:
    spec: KubernetesObject = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS.get(config.stage, _DEFAULT_GRACE_SECONDS),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_build_container(run, config, name, overrides, settings)],
        "volumes": _build_volumes(run, config, name),
    }
    if config.nodes > 1:
        spec["subdomain"] = service_name(run)
    if priority := overrides.priority_class_name or run.spec.scheduling.priority_class_name:
        spec["priorityClassName"] = priority
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if overrides.runtime_class_name:
        spec["runtimeClassName"] = overrides.runtime_class_name
    if overrides.node_selector:
        spec["nodeSelector"] = dict(overrides.node_selector)
    if overrides.tolerations:
        spec["tolerations"] = [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in overrides.tolerations
        ]
    return spec


def _build_container(
    run: AlignmentRun, config: StageConfig, name: str, overrides: StageOverrides, settings: BuildSettings
) -> KubernetesObject:
    is_gang = config.nodes > 1
    return {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "command": [COMMAND],
        "args": [
            f"--config={CONFIG_MOUNT}/{CONFIG_FILE}",
            f"--root={RUN_MOUNT}/{run.metadata.name}",
            f"--result={TERMINATION_LOG}",
            f"--port=$({Variable.METRICS_PORT})",
            *([f"--coordinator={coordinator(run, name)}"] if is_gang else []),
        ],
        "env": _build_environment(run, config),
        "ports": [
            {"name": "metrics", "containerPort": METRICS_PORT},
            *([{"name": "rendezvous", "containerPort": RENDEZVOUS_PORT}] if is_gang else []),
        ],
        # No liveness probe: a stage that stands still is found by its progress (`policy.stallTimeout`), and one that
        # computes must not be killed for answering late.
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 10},
        "resources": _build_resources(run, config, overrides),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_MOUNT},
            {"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True},
            {"name": "cache", "mountPath": CACHE_MOUNT},
            {"name": "tmp", "mountPath": TMP_MOUNT},
            {"name": "shm", "mountPath": SHARED_MEMORY_MOUNT},
            *(
                {"name": f"claim-{index}", "mountPath": f"{CLAIMS_MOUNT}/{claim}", "readOnly": True}
                for index, claim in enumerate(foreign_claims(run, config.stage))
            ),
        ],
    }


def _build_environment(run: AlignmentRun, config: StageConfig) -> list[KubernetesObject]:
    environment: list[KubernetesObject] = [{"name": Variable.METRICS_PORT, "value": str(METRICS_PORT)}]
    caches = {name: CACHE_MOUNT + path for name, path in _POD_CACHES.items()}
    caches |= {name: compiled_mount(run.metadata.name) + path for name, path in _RUN_CACHES.items()}
    environment += [{"name": name, "value": path} for name, path in sorted(caches.items())]
    if config.stage not in ONLINE_STAGES:
        environment.append({"name": Variable.HUB_OFFLINE, "value": "1"})
    for secret in secret_variables(run, config.stage):
        reference = {"secretKeyRef": {"name": secret.reference.name, "key": secret.reference.key}}
        environment.append({"name": secret.variable, "valueFrom": reference})
    return environment


def _build_resources(run: AlignmentRun, config: StageConfig, overrides: StageOverrides) -> KubernetesObject:
    """The user's own, and the GPUs that the stage is made for; a limit of the user's own wins, "0" means none."""
    engine = run.spec.engine.tensor_parallel
    wanted = {
        Stage.FETCH: 0,
        Stage.EXPORT: 0,
        Stage.PROMPTS: engine if run.spec.prompts.agents.need_engine else 0,
        Stage.TRAIN: run.spec.training.gpus_per_node,
    }.get(config.stage, engine)
    limits = {**({GPU: str(wanted)} if wanted else {}), **overrides.resources.limits}
    if limits.get(GPU) == "0":
        del limits[GPU]
    resources: KubernetesObject = {}
    if overrides.resources.requests:
        resources["requests"] = dict(overrides.resources.requests)
    if limits:
        resources["limits"] = limits
    return resources


def _build_volumes(run: AlignmentRun, config: StageConfig, name: str) -> list[KubernetesObject]:
    return [
        {"name": "run", "persistentVolumeClaim": {"claimName": claim_name(run)}},
        {"name": "config", "configMap": {"name": name}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}},
        *(
            {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for index, claim in enumerate(foreign_claims(run, config.stage))
        ),
    ]
