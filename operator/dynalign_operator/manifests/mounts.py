"""The volumes of a stage's pod, and where its container mounts them."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.pod_paths import (
    CACHE_MOUNT,
    CLAIMS_MOUNT,
    CONFIG_MOUNT,
    RUN_MOUNT,
    SHARED_MEMORY_MOUNT,
    TMP_MOUNT,
    TRUST_MOUNT,
)
from dynalign_contract.stages import Stage
from dynalign_operator.api.pods import ExtraVolume, StageOverrides
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import PodSettings
from dynalign_operator.manifests.environment import TRUST_FILE
from dynalign_operator.manifests.objects import KubernetesObject, dump
from dynalign_operator.manifests.volume import claim_name, foreign_claims

_EXTRA: Final = "extra-"
"""Beginning of the names of the user's own volumes in a pod."""
_READERS_OF_THE_USER_S_PATHS = frozenset({Stage.FETCH, Stage.ROLLOUT, Stage.PROMPTS})
"""Stages that open what `uri: /volume/...` names, such as another run's export."""


def build_volumes(
    run: AlignmentRun, config: StageConfig, name: str, overrides: StageOverrides, pods: PodSettings
) -> list[KubernetesObject]:
    """The list `volumes` of the pod whose ConfigMap is called `name`."""
    scratch, shared_memory = pods.scratch, overrides.shared_memory or pods.scratch.shared_memory
    volumes: list[KubernetesObject] = [
        {"name": "run", "persistentVolumeClaim": {"claimName": claim_name(run)}},
        {"name": "config", "configMap": {"name": name}},
        {"name": "cache", "emptyDir": {"sizeLimit": scratch.cache}},
        {"name": "tmp", "emptyDir": {"sizeLimit": scratch.tmp}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
        *(
            {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for index, claim in enumerate(foreign_claims(run, config.stage))
        ),
        *(_build_extra_volume(volume) for volume in overrides.volumes),
    ]
    if pods.ca_bundle is not None:
        file = {"key": pods.ca_bundle.key, "path": TRUST_FILE.rpartition("/")[2]}
        volumes.append({"name": "trust", "configMap": {"name": pods.ca_bundle.config_map, "items": [file]}})
    return volumes


def _build_extra_volume(volume: ExtraVolume) -> KubernetesObject:
    return {
        "name": f"{_EXTRA}{volume.name}",
        **{name: value for name, value in dump(volume).items() if name not in ("name", "mountPath")},
    }


def build_mounts(
    run: AlignmentRun, config: StageConfig, overrides: StageOverrides, pods: PodSettings
) -> list[KubernetesObject]:
    """The list `volumeMounts` of the container."""
    mounts: list[KubernetesObject] = [
        _build_run_mount(run, config),
        {"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True},
        {"name": "cache", "mountPath": CACHE_MOUNT},
        {"name": "tmp", "mountPath": TMP_MOUNT},
        {"name": "shm", "mountPath": SHARED_MEMORY_MOUNT},
        *(
            {"name": f"claim-{index}", "mountPath": f"{CLAIMS_MOUNT}/{claim}", "readOnly": True}
            for index, claim in enumerate(foreign_claims(run, config.stage))
        ),
        *(_build_extra_mount(volume) for volume in overrides.volumes),
    ]
    if pods.ca_bundle is not None:
        mounts.append({"name": "trust", "mountPath": TRUST_MOUNT, "readOnly": True})
    return mounts


def _build_extra_mount(volume: ExtraVolume) -> KubernetesObject:
    claim = volume.persistent_volume_claim
    writable = volume.empty_dir is not None or (claim is not None and not claim.read_only)
    mount: KubernetesObject = {"name": f"{_EXTRA}{volume.name}", "mountPath": volume.mount_path}
    return mount if writable else {**mount, "readOnly": True}


def _build_run_mount(run: AlignmentRun, config: StageConfig) -> KubernetesObject:
    """The whole claim; of a claim of the user's own, which other runs may lie on, the run's folder where that will do.

    The folder is there by then: fetch, which mounts the claim, has made it with the pods' own user.
    """
    if run.spec.storage.existing_claim is None or config.stage in _READERS_OF_THE_USER_S_PATHS:
        return {"name": "run", "mountPath": RUN_MOUNT}
    return {"name": "run", "mountPath": f"{RUN_MOUNT}/{run.metadata.name}", "subPath": run.metadata.name}
