"""StageConfig: the one file that a stage reads."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from dynalign_contract.base import Model
from dynalign_contract.estimate import Estimate
from dynalign_contract.layout import leases_folder, shard_folder, shares_folder, stage_folder
from dynalign_contract.objective import Objective
from dynalign_contract.preflight import Preflight
from dynalign_contract.result import ArtifactRef
from dynalign_contract.run_facts import RunFacts
from dynalign_contract.settings import (
    DEFAULT_CHAT,
    NO_TRACKING,
    NUMBER_OF_ENGINES,
    ChatSettings,
    Checkpoints,
    EngineSettings,
    EvaluationSettings,
    GenerationSettings,
    JudgingSettings,
    PromptSettings,
    PublishTargets,
    Quantized,
    Rewards,
    TaskName,
    TrackingSettings,
    TrainingSettings,
)
from dynalign_contract.stages import JOINED_STAGES, SHARDED_STAGES, Stage, is_of_iteration, iteration_of_part
from dynalign_contract.stores import OciServer, S3Server
from dynalign_contract.training_choice import TrainingChoice

SCHEMA_VERSION = 1

_DIVISION: Final = frozenset(
    {"nodes", "gpusPerNode", "microBatch", "tokensPerMicroBatch", "gradientCheckpointing", "optimizerOffload"}
)
"""Settings of `training` that divide a step among processes, passes and memories: which rows it has does not depend on
them."""

BASE_POLICY = "base"
"""Version name of the model before any training."""


def policy_version(iteration: int) -> str:
    """Version name of the policy that this iteration's training wrote."""
    return f"iteration-{iteration:03d}"


class Policy(Model):
    """Weights with a name: the base model, or what an iteration's training made of it."""

    version: str = BASE_POLICY
    """`base` or `iteration-003`."""
    adapter: ArtifactRef | None = None
    """The iteration's adapter, or with `training.method: Full` all its weights; None: the base model."""


class FetchParams(Model):
    """Bring the base model onto the volume, and what the evaluation's tasks are made of."""

    stage: Literal[Stage.FETCH] = Stage.FETCH
    uri: str
    tasks: tuple[TaskName, ...] = Field(default=(), exclude_if=lambda tasks: not tasks)
    """Tasks whose data come from elsewhere (`CapabilitySettings.foreign_tasks`). Where there are none, the field is
    left out of the file and of the digest."""
    quantized: Quantized = Field(default=Quantized.REFUSE, exclude_if=lambda quantized: quantized is Quantized.REFUSE)
    """`model.quantized`, left out of the file and of the digest where it is `Refuse`."""
    s3: S3Server | None = Field(default=None, exclude_if=lambda server: server is None)
    """Server of an `s3://` address. None: AWS."""
    oci: OciServer | None = Field(default=None, exclude_if=lambda server: server is None)
    """How the registry of an `oci://` address is asked."""
    preflight: Preflight | None = None
    """Settings that the model and the user's files are held against. No part of the digest: they decide nothing about
    what is fetched, so that changing them fetches nothing anew."""


class PromptsParams(Model):
    """Write (and, once, hold out) prompts. Inputs: model; later also heldout, history-000 .."""

    stage: Literal[Stage.PROMPTS] = Stage.PROMPTS
    objective: Objective
    prompts: PromptSettings
    policy: Policy = Policy()
    reserve_tokens: int
    """Tokens that the context window must keep free for a completion."""
    columns: tuple[str, ...] = Field(default=(), exclude_if=lambda columns: not columns)
    """Columns of the supplied prompts that verifiers read: their values travel with the prompts. Where there are none,
    the field is left out of the file and of the digest."""


class GenerateParams(Model):
    """Sample candidates. Inputs: model, prompts."""

    stage: Literal[Stage.GENERATE] = Stage.GENERATE
    generation: GenerationSettings
    policy: Policy = Policy()


class JudgeParams(Model):
    """Score candidates. Inputs: model, rollouts."""

    stage: Literal[Stage.JUDGE] = Stage.JUDGE
    objective: Objective
    judging: JudgingSettings
    judge: Policy = Policy()
    """The only judge; with `judging.judges` it is not asked."""
    policies: dict[str, Policy] = Field(default_factory=dict, exclude_if=lambda policies: not policies)
    """Name -> weights of each of `judging.judges` that is the run's own model. Where there are none, the field is left
    out of the file and of the digest."""
    max_tokens: int
    """`generation.maxTokens`, for the length penalties."""
    rewards: Rewards = Field(default=(), exclude_if=lambda rewards: not rewards)
    """Verifiers beside the judge. Where there are none, the field is left out of the file and of the digest."""
    prompts_per_part: int


class TrainParams(Model):
    """Build the batch, train, write the next policy. Inputs: model, rollouts, judgements."""

    stage: Literal[Stage.TRAIN] = Stage.TRAIN
    training: TrainingSettings
    checkpoints: Checkpoints = TrainingSettings().checkpoints
    """When training saves what it has. No part of the digest: a run whose checkpoints come more often goes on from the
    last one."""
    policy: Policy = Policy()
    """The policy that wrote the rollouts and from which training starts."""
    temperature: float
    max_tokens: int


class EvaluateParams(Model):
    """Compare on the held-out prompts, and examine by tasks.

    Inputs: model, heldout; later also answers, capability, evaluation-000 ..
    """

    stage: Literal[Stage.EVALUATE] = Stage.EVALUATE
    objective: Objective
    evaluation: EvaluationSettings
    judging: JudgingSettings = JudgingSettings()
    """How `method: Pointwise` scores an answer (as in training), and the least mass of any judge's answer."""
    policy: Policy
    """The policy under evaluation."""
    previous: Policy = Policy()
    """The policy before it."""
    max_tokens: int
    thinking_tokens: int | None = Field(default=None, exclude_if=lambda tokens: tokens is None)
    """`generation.thinkingTokens`, left out of the file and of the digest where it is not set."""
    rewards: Rewards = Field(default=(), exclude_if=lambda rewards: not rewards)
    """Verifiers that value the answers too, left out of the file and of the digest where there are none."""
    max_length: int | None = None


class RolloutPart(Model):
    """One stage of a rollout: its parameters, and where its inputs come from."""

    params: Annotated[PromptsParams | GenerateParams | JudgeParams | EvaluateParams, Field(discriminator="stage")]
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict)
    """Name -> artifact that is there before the rollout begins."""
    made: dict[str, Stage] = Field(default_factory=dict)
    """Name -> the stage of this rollout whose artifact it is."""

    @property
    def stage(self) -> Stage:
        """The stage that this configures."""
        return self.params.stage

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The weights with which the stage asks the engine."""
        match self.params:
            case JudgeParams():
                return (self.params.judge, *self.params.policies.values())
            case EvaluateParams():
                return (self.params.policy, self.params.previous)
            case _:
                return (self.params.policy,)


class RolloutParams(Model):
    """Stages of `PART_STAGES` in one process with one engine. Inputs: none beside those of its parts."""

    stage: Literal[Stage.ROLLOUT] = Stage.ROLLOUT
    parts: tuple[RolloutPart, ...] = Field(min_length=1)
    """In the order in which they run: evaluate, of the iteration before, comes first, and judge last."""
    ends_on_regression: bool = Field(default=False, exclude_if=lambda ends: not ends)
    """Whether nothing follows an evaluation that found the policy worse (`evaluation.onRegression` is not Continue)."""


class IterationSummary(Model):
    """Numbers of one iteration for the model card."""

    index: int
    reward: float | None = None
    win_rate: Estimate | None = None
    capability: Estimate | None = None
    capability_delta: Estimate | None = None


class ExportParams(Model):
    """Write the chosen policy, adapter merged, as a model folder with a card. Inputs: model."""

    stage: Literal[Stage.EXPORT] = Stage.EXPORT
    policy: Policy
    model_uri: str
    objective: Objective
    iterations: tuple[IterationSummary, ...] = ()
    training: TrainingChoice | None = Field(default=None, exclude_if=lambda choice: choice is None)
    """How the policy was trained, for the card; absent where no stage has reported it."""
    publish: PublishTargets = Field(default=(), exclude_if=lambda targets: not targets)
    """Where the export is copied to once it is whole. No part of the digest: changing the places exports nothing
    anew."""


class ReportParams(Model):
    """Write the report of what the run has left in its folder so far. No inputs: it reads what can be read."""

    stage: Literal[Stage.REPORT] = Stage.REPORT
    facts: RunFacts
    """What the folder does not say: specification, conditions, and the stages that have no artifact."""
    iteration: int | None = Field(default=None, ge=0)
    """Latest finished iteration that the report covers; None before the first."""
    tracking: TrackingSettings = Field(default=NO_TRACKING, exclude_if=lambda tracking: tracking == NO_TRACKING)
    """Trackers that the run's numbers are written to as well."""


Params = Annotated[
    FetchParams
    | RolloutParams
    | PromptsParams
    | GenerateParams
    | JudgeParams
    | TrainParams
    | EvaluateParams
    | ExportParams
    | ReportParams,
    Field(discriminator="stage"),
]


class StageConfig(Model):
    """Everything that one attempt of a stage needs, beside secrets, rank and cache locations."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    run: str
    """Name of the run."""
    iteration: int | None = Field(default=None, ge=0)
    """0-based; None for fetch, export and report."""
    attempt: int = Field(default=1, ge=1)
    shards: int = Field(default=1, ge=1)
    """Workers that share this stage's rows; which one this is comes from the environment (`JOB_COMPLETION_INDEX`)."""
    seed: int = 0
    engine: EngineSettings = EngineSettings()
    chat: ChatSettings = Field(default=DEFAULT_CHAT, exclude_if=lambda chat: chat == DEFAULT_CHAT)
    """How chats with the model are rendered. With the defaults the field is left out of the file and of the digest."""
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict)
    """Name -> artifact, verified before the stage starts."""
    params: Params

    @model_validator(mode="after")
    def _belongs(self) -> "StageConfig":
        inside = is_of_iteration(self.stage)
        if inside != (self.iteration is not None):
            raise ValueError(f"stage {self.stage} {'needs' if inside else 'has no'} iteration")
        if self.shards > 1 and self.stage not in SHARDED_STAGES:
            raise ValueError(f"stage {self.stage} is not sharded")
        return self

    @property
    def stage(self) -> Stage:
        """The stage that this configures."""
        return self.params.stage

    @property
    def needs_engine(self) -> bool:
        """Whether the stage asks the run's own model."""
        match self.params:
            case PromptsParams():
                return self.params.prompts.agents.need_engine
            case JudgeParams():
                return self.params.judging.need_engine
            case GenerateParams() | EvaluateParams():
                return True
            case _:
                return False

    @property
    def nodes(self) -> int:
        """Pods that do this stage's work together (a gang): their ranks, too, come from `JOB_COMPLETION_INDEX`."""
        return self.params.training.nodes if isinstance(self.params, TrainParams) else 1

    @property
    def folder(self) -> str:
        """Folder of the stage's artifact, relative to the run's folder; all shards together."""
        return stage_folder(self.stage, self.iteration)

    def shard(self, index: int) -> str:
        """Folder of one shard, or of its share where shares are joined, relative to the run's folder."""
        return shard_folder(self.shares if self.is_joined else self.folder, index, self.shards)

    @property
    def is_joined(self) -> bool:
        """Whether workers share the stage's work, and one of them joins their shares into the artifact at `folder`."""
        return self.shards > 1 and self.stage in JOINED_STAGES

    @property
    def shares(self) -> str:
        """Folder of the shares until they are joined, relative to the run's folder."""
        return shares_folder(self.folder, self.digest)

    @property
    def leases(self) -> str:
        """Folder of the leases on parts while several shards are at work, relative to the run's folder."""
        return leases_folder(self.folder, self.digest)

    def of_part(self, part: RolloutPart, made: Mapping[Stage, ArtifactRef]) -> "StageConfig":
        """The configuration of a rollout's part, as a Job of that stage alone would have it: with the same digest.

        `made` are the artifacts of the parts before it.
        """
        return self.model_copy(
            update={
                "iteration": iteration_of_part(part.stage, self.iteration or 0),
                "shards": self.shards if part.stage in SHARDED_STAGES else 1,
                "inputs": {**part.inputs, **{name: made[stage] for name, stage in part.made.items()}},
                "params": part.params,
            }
        )

    @property
    def digest(self) -> str:
        """Digest of all that decides the artifact's contents; the attempt does not, nor does what is only checked."""
        data = self._decisive()
        if isinstance(self.params, TrainParams):
            # Left out, it is decided when training begins, and nothing of the policy depends on it.
            data["params"]["training"].setdefault("gradientCheckpointing", True)
        return _digest_of(data)

    @property
    def progress_digest(self) -> str:
        """Digest of all that a training's checkpoints depend on: `digest` but for how its work is divided."""
        data = self._decisive()
        training = data["params"].get("training", {})
        data["params"]["training"] = {key: value for key, value in training.items() if key not in _DIVISION}
        return _digest_of(data)

    def _decisive(self) -> dict[str, Any]:
        """All that decides the artifact's contents, as JSON's types."""
        return self.model_dump(
            mode="json",
            by_alias=True,
            exclude={
                "attempt": True,
                "engine": set(NUMBER_OF_ENGINES),
                "params": {"preflight", "publish", "checkpoints"},
            },
        )


def _digest_of(data: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
