"""AlignmentRun, `dynalign.io/v1alpha1`: what a user writes (the status is in `status.py`).

The CustomResourceDefinition is generated from these models: attribute docstrings become `kubectl explain`, defaults and
limits become the schema, and the rules in `rules` become CEL.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field

from dynalign_contract.base import Model
from dynalign_contract.environment import EnvironmentVariable
from dynalign_contract.names import (
    DataKey,
    LabelValue,
    ObjectName,
    QualifiedName,
    form,
)
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.settings import (
    ChatSettings,
    EngineSettings,
    EvaluationSettings,
    GenerationSettings,
    JudgingSettings,
    PromptSettings,
    Quantized,
    Rewards,
    TrainingSettings,
)
from dynalign_contract.sources import ModelUri
from dynalign_operator.api.durations import DURATION_PATTERN
from dynalign_operator.api.status import AlignmentRunStatus

GROUP: Final = "dynalign.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "AlignmentRun"
PLURAL: Final = "alignmentruns"


def _quantity_text(value: object) -> object:
    """Kubernetes takes a whole number for a quantity too; everything after this sees text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        max_length=63,
        json_schema_extra=form("lower-case letters, digits and inner hyphens, for example my-run"),
    ),
]
"""Name of a Kubernetes object that has to fit into a label."""

Duration = Annotated[
    str,
    Field(
        pattern=DURATION_PATTERN,
        max_length=32,
        json_schema_extra=form("a time span such as 90s, 30m, 72h or 1d12h"),
    ),
]
"""A time span such as `90s`, `30m`, `72h` or `1d12h`."""

Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
        max_length=32,
        json_schema_extra=form("a quantity such as 500m, 8 or 100Gi") | {"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(_quantity_text),
]
"""A Kubernetes quantity such as `500m`, `8` or `100Gi`."""

ResourceList = Annotated[dict[QualifiedName, Quantity], Field(max_length=16)]
"""Resource name such as `cpu`, `memory` or `nvidia.com/gpu` -> quantity."""

Labels = Annotated[dict[QualifiedName, LabelValue], Field(max_length=32)]
Annotations = Annotated[dict[QualifiedName, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]


class ConfigMapKeyRef(Model):
    """A key of a ConfigMap in the run's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey = "objective.yaml"
    """Key under which the ConfigMap holds the objective."""


class ModelSpec(Model):
    """The model to align. Immutable."""

    uri: ModelUri
    """`hf://org/name[@revision]`, `pvc://claim/path`, `bundled://smollm2-135m-instruct`, or a path: `/folder` in the
    pod (`dynalign run`: on this machine), `./folder` beside the run file (`dynalign run` only)."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for the model hub; only the fetch stage sees it."""
    chat: ChatSettings = ChatSettings()
    quantized: Quantized = Quantized.REFUSE
    """What fetch does with a checkpoint whose weights are quantised. `Dequantize` converts `mxfp4`, `fp8`,
    `compressed-tensors` and `awq`; copy and export are larger than the checkpoint, up to four times."""


class ObjectiveSpec(Model):
    """What the model is aligned to. Immutable."""

    builtin: Literal["collective-agency", "helpful-honest-harmless"] | None = None
    """An objective that ships with dynalign. Default when nothing else is given: collective-agency."""
    config_map_ref: ConfigMapKeyRef | None = None
    """The user's own aspects, rubric and agents, as YAML of the same shape as the builtin one."""


class AccessMode(StrEnum):
    """How many nodes may mount the run's volume."""

    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE = "ReadWriteOnce"


class StorageSpec(Model):
    """The volume that holds the run. Immutable."""

    size: Quantity = "100Gi"
    """Size of the new volume. It holds the model, an adapter for every iteration, and the exported model."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the new volume. Default: the cluster's default class."""
    access_mode: AccessMode = AccessMode.READ_WRITE_MANY
    existing_claim: Name | None = None
    """A PersistentVolumeClaim to use instead of a new one, which outlives the run. With several nodes or shards it must
    offer ReadWriteMany."""


class Rollout(StrEnum):
    """How prompts, generate and judge are put into Jobs."""

    SEPARATE = "Separate"


class Resources(Model):
    """Requests and limits of a stage's container."""

    requests: ResourceList = Field(default={})
    """What the scheduler sets aside, for example `cpu: 2`."""
    limits: ResourceList = Field(default={})
    """The most that the container may use, for example `memory: 16Gi`. GPUs (`nvidia.com/gpu`) are asked for by
    themselves, as `training.gpusPerNode` and `engine.tensorParallel` say; `"0"` means none, and any other
    number is refused."""


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


class StageOverrides(Model):
    """Where and with what a stage's pods run."""

    resources: Resources = Resources()
    node_selector: Labels = Field(default={})
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16)
    """Taints that the pods tolerate."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods. Default: `scheduling.priorityClassName`."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for example `nvidia`. Default: the cluster's own."""
    pod_labels: Labels = Field(default={})
    """Further labels of the pods; those of dynalign's own win."""
    pod_annotations: Annotations = Field(default={})
    """Annotations of the pods."""
    env: tuple[EnvironmentVariable, ...] = Field(default=(), max_length=32)
    """Variables of the container's environment, such as `NCCL_SOCKET_IFNAME`."""


class StagesSpec(Model):
    """Overrides for each stage, all optional."""

    fetch: StageOverrides = StageOverrides()
    prompts: StageOverrides = StageOverrides()
    generate: StageOverrides = StageOverrides()
    judge: StageOverrides = StageOverrides()
    train: StageOverrides = StageOverrides()
    evaluate: StageOverrides = StageOverrides()
    export: StageOverrides = StageOverrides()


class SchedulingSpec(Model):
    """How the cluster's queue sees the run's Jobs."""

    queue_name: Name | None = None
    """Kueue LocalQueue; every Job is labelled with it."""
    priority_class_name: ObjectName | None = None
    """Priority of all pods of the run; a stage's own goes before it."""


class RunPolicy(Model):
    """Retries and the ends of all waits."""

    retries: int = Field(default=3, ge=0, le=100)
    """Failures of one stage that are retried; disruptions are free, bad input is never retried."""
    pending_timeout: Duration = "30m"
    """Maximum wait for a pod to start; time in a queue does not count."""
    stall_timeout: Duration = "15m"
    """Maximum time that a stage may run without progress. Progress that the operator cannot read is no stall."""
    deadline: Duration = "72h"
    """Maximum time from the run's start to its end."""
    ttl_after_finished: Duration = "168h"
    """How long a finished Job is kept, with its pods and their logs; those of iterations older than the last ten go
    earlier."""


class ExportedPolicy(StrEnum):
    """Which iteration's policy is exported."""

    BEST = "Best"
    LAST = "Last"


class ExportSpec(Model):
    """The model folder at the end."""

    policy: ExportedPolicy = ExportedPolicy.BEST


class AlignmentRunSpec(Model):
    """A run: what is aligned, to what, how, and with which resources."""

    model: ModelSpec
    objective: ObjectiveSpec = ObjectiveSpec()
    iterations: int = Field(default=3, ge=1, le=1000)
    """May be raised later: the run goes on."""
    seed: int = Field(default=0, ge=0, le=2_147_483_647)
    """Seed of all random number generators."""
    engine: EngineSettings = EngineSettings()
    prompts: PromptSettings = PromptSettings()
    generation: GenerationSettings = GenerationSettings()
    judging: JudgingSettings = JudgingSettings()
    rewards: Rewards = ()
    """Verifiers beside the judge: the reward is the weighted mean of their values and the judge's reward."""
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    export: ExportSpec = ExportSpec()
    storage: StorageSpec = StorageSpec()
    rollout: Rollout = Rollout.SEPARATE
    stages: StagesSpec = StagesSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    policy: RunPolicy = RunPolicy()
    suspend: bool = False
    """Stop the Jobs and free their GPUs; false again goes on where the run stopped."""


class ObjectMeta(Model):
    """The part of Kubernetes metadata that dynalign reads; the rest is kept out of the way."""

    model_config = ConfigDict(extra="ignore")

    name: Name
    namespace: Name = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class AlignmentRun(Model):
    """A language model aligning itself."""

    api_version: Literal["dynalign.io/v1alpha1"]
    kind: Literal["AlignmentRun"]
    metadata: ObjectMeta
    spec: AlignmentRunSpec
    status: AlignmentRunStatus = AlignmentRunStatus()

    def with_status(self, status: AlignmentRunStatus) -> Self:
        """Return the run with another status."""
        return self.model_copy(update={"status": status})

    def with_suspend(self, *, suspend: bool) -> Self:
        """Return the run with another value of `spec.suspend`."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"suspend": suspend})})
