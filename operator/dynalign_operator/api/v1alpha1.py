"""AlignmentRun, `dynalign.io/v1alpha1`: what a user writes (the status is in `status.py`).

The CustomResourceDefinition is generated from these models: attribute docstrings become `kubectl explain`, defaults and
limits become the schema, and the rules in `rules` become CEL.
"""

from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import ConfigDict, Field

from dynalign_contract.base import Model
from dynalign_contract.names import (
    DataKey,
    ObjectName,
)
from dynalign_contract.references import CredentialsRef, SecretKeyRef
from dynalign_contract.settings import (
    ChatSettings,
    EngineSettings,
    EvaluationSettings,
    GenerationSettings,
    JudgingSettings,
    PromptSettings,
    PublishTargets,
    Quantized,
    Rewards,
    TrackingSettings,
    TrainingSettings,
)
from dynalign_contract.sources import ModelUri
from dynalign_contract.stores import OciServer, S3Server
from dynalign_operator.api.approvals import Gate
from dynalign_operator.api.notifications import Webhook
from dynalign_operator.api.pods import StagesSpec
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.values import Duration, Name, Quantity

GROUP: Final = "dynalign.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "AlignmentRun"
PLURAL: Final = "alignmentruns"


class ConfigMapKeyRef(Model):
    """A key of a ConfigMap in the run's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey = "objective.yaml"
    """Key under which the ConfigMap holds the objective."""


class ModelSpec(Model):
    """The model to align. Immutable."""

    uri: ModelUri
    """`hf://org/name[@revision]`, `s3://bucket/folder`, `oci://registry/repository:tag` (or `@sha256:...`),
    `pvc://claim/path`, `bundled://smollm2-135m-instruct`, or a path: `/folder` in the pod (`dynalign run`: on this
    machine), `./folder` beside the run file (`dynalign run` only)."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for the model hub; only the fetch stage sees it."""
    s3: S3Server | None = Field(default=None, exclude_if=lambda server: server is None)
    """For `s3://`: the server. Default: AWS in us-east-1."""
    oci: OciServer | None = Field(default=None, exclude_if=lambda server: server is None)
    """For `oci://`: how the registry is asked. Default: by HTTPS."""
    credentials_secret_ref: CredentialsRef | None = Field(default=None, exclude_if=lambda reference: reference is None)
    """For `s3://` the access key, for `oci://` user name and password; only the fetch stage sees them. `dynalign run`
    takes them from the environment: DYNALIGN_MODEL_USERNAME and DYNALIGN_MODEL_PASSWORD, or
    DYNALIGN_MODEL_DOCKER_CONFIG with `dockerConfigKey`. Default: none are used."""
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
    """A Job for each, which starts its own engine."""
    FUSED = "Fused"
    """One Job, `rollout`, whose stages share an engine. It leaves the same artifacts and figures for the same seed. It
    begins with the evaluation of the iteration before, unless `stages.evaluate` asks for pods of its own. On one
    machine (`dynalign run`) shards run one after the other, and stages of more than one are separate."""
    AUTO = "Auto"
    """Fused where prompts and judge use the run's own engine, and no `stages.prompts`, `stages.generate` or
    `stages.judge` says where they run; else Separate. `dynalign validate` says which, and why. A run that has begun
    with a Job for each goes on so."""


class SchedulingSpec(Model):
    """How the cluster's queue sees the run's Jobs."""

    queue_name: Name | None = None
    """Kueue LocalQueue; every Job is labelled with it."""
    priority_class_name: ObjectName | None = None
    """Priority of all pods of the run; a stage's own goes before it."""


class Budget(Model):
    """What a run may take. It may be raised later: the run goes on."""

    gpu_hours: float = Field(gt=0, le=1e9, allow_inf_nan=False)
    """GPU-hours that the stages of the iterations may reserve together. No stage is started that would exceed them by
    what it cost in earlier iterations; for the first one that is estimated where the model's sizes are known. Pods
    without GPUs count nothing."""


class RunPolicy(Model):
    """Retries, the ends of all waits, what the run may cost, and what a person approves."""

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
    budget: Budget | None = Field(default=None, exclude_if=lambda budget: budget is None)
    """What the run may take; before the stage that would exceed it the run is held, without a Job. Default: no
    limit."""
    approval: tuple[Gate, ...] = Field(default=(), max_length=len(Gate), exclude_if=lambda gates: not gates)
    """Where the run waits, without a Job, until a person has approved what it has made so far (`dynalign approve`).
    The wait has no end and counts against no limit."""


class ExportedPolicy(StrEnum):
    """Which iteration's policy is exported."""

    BEST = "Best"
    LAST = "Last"


class ExportSpec(Model):
    """The model folder at the end."""

    policy: ExportedPolicy = ExportedPolicy.BEST
    publish: PublishTargets = Field(default=(), exclude_if=lambda targets: not targets)
    """Places to which the export stage copies the model once it is whole on the volume."""


class ReportTime(StrEnum):
    """When the report of a run is written."""

    EVERY_ITERATION = "EveryIteration"
    AT_END = "AtEnd"
    NEVER = "Never"


class ReportSpec(Model):
    """The report of the run, `report.html` in its folder."""

    when: ReportTime = ReportTime.EVERY_ITERATION
    """`EveryIteration`: after every iteration, beside the stages of the next one, and when the run has succeeded or
    failed. A volume that is not ReadWriteMany is mounted by one pod at a time: there the report is written at the end
    only, as with `AtEnd`."""


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
    report: ReportSpec = ReportSpec()
    tracking: TrackingSettings = TrackingSettings()
    """Trackers that the run's numbers are written to, whenever its report is written."""
    storage: StorageSpec = StorageSpec()
    rollout: Rollout = Rollout.AUTO
    stages: StagesSpec = StagesSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    policy: RunPolicy = RunPolicy()
    notify: tuple[Webhook, ...] = Field(default=(), max_length=4, exclude_if=lambda webhooks: not webhooks)
    """Webhooks that are told when the run ends, is held or needs a person. In a cluster the chart's value
    `notifications` allows them."""
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

    def with_annotation(self, name: str, text: str) -> Self:
        """Return the run with an annotation added or replaced."""
        annotations = {**self.metadata.annotations, name: text}
        return self.model_copy(update={"metadata": self.metadata.model_copy(update={"annotations": annotations})})

    def without_approval(self) -> Self:
        """Return the run as one that waits for no approval."""
        policy = self.spec.policy.model_copy(update={"approval": ()})
        return self.model_copy(update={"spec": self.spec.model_copy(update={"policy": policy})})

    def without_budget(self) -> Self:
        """Return the run as one that may take what it needs."""
        policy = self.spec.policy.model_copy(update={"budget": None})
        return self.model_copy(update={"spec": self.spec.model_copy(update={"policy": policy})})

    def with_suspend(self, *, suspend: bool) -> Self:
        """Return the run with another value of `spec.suspend`."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"suspend": suspend})})
