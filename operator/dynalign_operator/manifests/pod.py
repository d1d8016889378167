"""The pod of a stage: restricted Pod Security, its container, where it runs."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.pod_paths import (
    CONFIG_MOUNT,
    METRICS_PORT,
    RENDEZVOUS_PORT,
    RUN_MOUNT,
    TERMINATION_LOG,
    Variable,
)
from dynalign_operator.api.pods import StageOverrides
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings, PodSecurity
from dynalign_operator.manifests.config_map import CONFIG_FILE
from dynalign_operator.manifests.environment import build_environment
from dynalign_operator.manifests.labels import JOB_NAME, JobLabels, job_labels
from dynalign_operator.manifests.mounts import build_mounts, build_volumes
from dynalign_operator.manifests.objects import KubernetesObject, dump
from dynalign_operator.manifests.overrides import build_resources, count_gpus, grace_seconds, stage_overrides
from dynalign_operator.manifests.service import coordinator, service_name

CONTAINER: Final = "stage"
COMMAND: Final = "dynalign-stage"


def build_pod_template(run: AlignmentRun, config: StageConfig, name: str, settings: BuildSettings) -> KubernetesObject:
    """The pod template of the Job `name`, whose ConfigMap has the same name."""
    overrides = stage_overrides(run, config.stage, settings.pods.pod_defaults)
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
        "terminationGracePeriodSeconds": grace_seconds(config.stage, overrides),
        "securityContext": _build_security(settings.pods.pod_security),
        "containers": [_build_container(run, config, name, overrides, settings)],
        "volumes": build_volumes(run, config, name, overrides, settings.pods),
    }
    if config.nodes > 1:
        spec["subdomain"] = service_name(run)
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if overrides.resource_claims and count_gpus(run.spec, config.stage, overrides.gpu_resource):
        spec["resourceClaims"] = [dump(claim) for claim in overrides.resource_claims]
    return spec | _build_placement(name, overrides)


def _build_placement(name: str, overrides: StageOverrides) -> KubernetesObject:
    """Where the pods of the Job `name` go, and as whom; what nothing is said about is left out."""
    selector = {"matchLabels": {JOB_NAME: name}}
    fields: KubernetesObject = {
        "priorityClassName": overrides.priority_class_name,
        "runtimeClassName": overrides.runtime_class_name,
        "serviceAccountName": overrides.service_account_name,
        "nodeSelector": dict(overrides.node_selector),
        "affinity": overrides.affinity and dump(overrides.affinity),
        "topologySpreadConstraints": [
            {**dump(spread), "labelSelector": selector} for spread in overrides.topology_spread
        ],
        "tolerations": [dump(toleration) for toleration in overrides.tolerations],
    }
    return {field: value for field, value in fields.items() if value}


def _build_security(identity: PodSecurity | None) -> KubernetesObject:
    """Restricted Pod Security; without an identity the cluster chooses one, and the image's user is no root."""
    context: KubernetesObject = {"runAsNonRoot": True}
    if identity is not None:
        context |= identity.model_dump(mode="json", by_alias=True, exclude_none=True)
    if "fsGroup" in context:
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    return {**context, "seccompProfile": {"type": "RuntimeDefault"}}


def _build_container(
    run: AlignmentRun, config: StageConfig, name: str, overrides: StageOverrides, settings: BuildSettings
) -> KubernetesObject:
    is_gang = config.nodes > 1
    gpus = count_gpus(run.spec, config.stage, overrides.gpu_resource)
    return {
        "name": CONTAINER,
        "image": overrides.image or settings.trainer_image,
        "command": [COMMAND],
        "args": [
            f"--config={CONFIG_MOUNT}/{CONFIG_FILE}",
            f"--root={RUN_MOUNT}/{run.metadata.name}",
            f"--result={TERMINATION_LOG}",
            f"--port=$({Variable.METRICS_PORT})",
            *([f"--coordinator={coordinator(run, name)}"] if is_gang else []),
        ],
        "env": build_environment(run, config, overrides, settings, gpus=gpus),
        "ports": [
            {"name": "metrics", "containerPort": METRICS_PORT},
            *([{"name": "rendezvous", "containerPort": RENDEZVOUS_PORT}] if is_gang else []),
        ],
        # No liveness probe: a stage that stands still is found by its progress (`policy.stallTimeout`), and one that
        # computes must not be killed for answering late.
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 10},
        "resources": build_resources(overrides, gpus),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": build_mounts(run, config, overrides, settings.pods),
    }
