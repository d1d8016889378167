"""Where and with what a stage's pods run: what a run, or the chart, may say about them."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.environment import EnvironmentVariable
from dynalign_contract.names import LabelValue, ObjectName, QualifiedName, form
from dynalign_operator.api.affinity import FreeAffinity, TopologySpread
from dynalign_operator.api.values import Annotations, Duration, ImageName, Labels, Name, Quantity, ResourceList

EXTRA_MOUNTS: Final = "/mnt/"
"""Folder below which a run's own volumes are mounted: no program is looked for there."""


class Resources(Model):
    """Requests and limits of a stage's container."""

    requests: ResourceList = Field(default={})
    """What the scheduler sets aside, for example `cpu: 2`."""
    limits: ResourceList = Field(default={})
    """The most that the container may use, for example `memory: 16Gi`. GPUs (`nvidia.com/gpu`, or what `gpuResource`
    names) are asked for by themselves, as `training.gpusPerNode` and `engine.tensorParallel` x `engine.replicas` say;
    `"0"` means none, and any other number is refused."""


class Toleration(Model):
    """A Kubernetes toleration."""

    key: QualifiedName | None = None
    """Key of the taint; left out with `operator: Exists` for every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint must have `value`, or may have any."""
    value: LabelValue | None = None
    """Value of the taint, with `operator: Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Default: every effect."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=2_147_483_647)
    """For `effect: NoExecute`: how long the pod stays, in seconds."""


class ClaimSource(Model):
    """A PersistentVolumeClaim of the run's namespace."""

    claim_name: ObjectName
    """Name of the claim."""
    read_only: bool = True
    """Whether the stage may only read from it."""


class ConfigMapSource(Model):
    """A ConfigMap of the run's namespace, a file for each key."""

    name: ObjectName
    """Name of the ConfigMap."""


class Medium(StrEnum):
    """What an empty folder lies on."""

    DISK = ""
    MEMORY = "Memory"


class EmptyDirSource(Model):
    """A folder that is empty when the pod starts and goes with it."""

    size_limit: Quantity
    """The most that it may hold; a pod that writes more is evicted."""
    medium: Medium = Medium.DISK
    """Empty: the node's disk. Memory counts against the container's limit."""


VolumeName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$",
        max_length=32,
        json_schema_extra=form("lower-case letters, digits and inner hyphens, for example plugins"),
    ),
]


class ExtraVolume(Model):
    """A volume of the user's own in a stage's pods."""

    name: VolumeName
    """Name of the volume, for messages of Kubernetes."""
    mount_path: Annotated[
        str,
        Field(
            pattern=rf"^{EXTRA_MOUNTS}[A-Za-z0-9_-][A-Za-z0-9._/-]*$",
            max_length=256,
            json_schema_extra=form(f"a folder below {EXTRA_MOUNTS}, for example {EXTRA_MOUNTS}plugins"),
        ),
    ]
    """Folder in the container."""
    persistent_volume_claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None
    empty_dir: EmptyDirSource | None = None


class DeviceClaim(Model):
    """Devices by dynamic resource allocation (KEP-4381), in the place of a number of GPUs."""

    name: Name
    """Name of the claim within the pod."""
    resource_claim_template_name: ObjectName
    """A ResourceClaimTemplate of the run's namespace, from which every pod gets a claim of its own."""


class StageOverrides(Model):
    """Where and with what a stage's pods run."""

    resources: Resources = Resources()
    gpu_resource: QualifiedName | None = None
    """Name of the resource that a GPU is. Default: `nvidia.com/gpu`."""
    resource_claims: tuple[DeviceClaim, ...] = Field(default=(), max_length=4)
    """Claims that bring the GPUs: none are then asked for by number."""
    node_selector: Labels = Field(default={})
    """Labels that a node must have."""
    affinity: FreeAffinity | None = None
    """Kubernetes' `affinity`: nodeAffinity, podAffinity and podAntiAffinity, required or preferred."""
    topology_spread: tuple[TopologySpread, ...] = Field(default=(), max_length=4)
    """How evenly the pods of one Job, such as its shards, are spread over zones or nodes."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16)
    """Taints that the pods tolerate."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods. Default: `scheduling.priorityClassName`."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for example `nvidia`. Default: the cluster's own."""
    image: ImageName | None = None
    """Image of the pods. The installation says which images runs may name (chart value `trainer.allowedImages`).
    Default: the installation's."""
    service_account_name: Name | None = None
    """ServiceAccount of the pods, whose token they do not get. The installation says which ones runs may name (chart
    value `trainer.allowedServiceAccounts`). Default: the namespace's `default`."""
    pod_labels: Labels = Field(default={})
    """Further labels of the pods; those of dynalign's own win."""
    pod_annotations: Annotations = Field(default={})
    """Annotations of the pods."""
    env: tuple[EnvironmentVariable, ...] = Field(default=(), max_length=32)
    """Variables of the container's environment, such as `NCCL_SOCKET_IFNAME`."""
    volumes: tuple[ExtraVolume, ...] = Field(default=(), max_length=8)
    """Volumes beside those of the run. Python packages are not loaded from them."""
    shared_memory: Quantity | None = None
    """Upper limit of `/dev/shm`, through which NCCL and vLLM's workers talk. Default: the installation's, 8Gi."""
    termination_grace_period: Duration | None = None
    """Time between SIGTERM and SIGKILL. Default: 2m for train, which saves a checkpoint, 30s for other stages."""


class StagesSpec(Model):
    """Overrides for each stage, all optional."""

    fetch: StageOverrides = StageOverrides()
    prompts: StageOverrides = StageOverrides()
    generate: StageOverrides = StageOverrides()
    judge: StageOverrides = StageOverrides()
    train: StageOverrides = StageOverrides()
    evaluate: StageOverrides = StageOverrides()
    export: StageOverrides = StageOverrides()
    report: StageOverrides = StageOverrides()
    rollout: StageOverrides = StageOverrides()
    """Where prompts, generate and judge are fused, in their place, and in that of evaluate where that is empty."""
