"""GRPO on recorded groups: weights, loss, optimiser, processes."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field

from dynalign_contract.base import Model


class TrainingBackend(StrEnum):
    """Which trainer computes the loss."""

    AUTO = "Auto"
    """Packed where it computes the model as transformers does, else TRL; fetch decides, and the status says why."""
    PACKED = "Packed"
    """Without padding: rows share micro-batches by token budget, candidates of one prompt compute it once."""
    TRL = "TRL"
    """TRL's GRPOTrainer replaying the recorded groups."""


class TrainingMethod(StrEnum):
    """Which weights are trained."""

    LORA = "LoRA"
    """A low-rank adapter beside the base model's weights."""
    FULL = "Full"
    """All weights; each iteration keeps its own, 4 bytes a parameter."""


class OptimizerOffload(StrEnum):
    """Where the optimiser's states lie."""

    NONE = "None"
    """In the memory of the GPUs."""
    CPU = "CPU"
    """In the memory of the machine, whose cores take the optimiser's steps."""


ModuleName = Annotated[str, Field(min_length=1, max_length=128)]

AUTO_TARGETS: Final = "Auto"
"""Stands in `targetModules` for the modules that fetch chooses."""
_MICRO_BATCH: Final = 4
_TOKENS_PER_MICRO_BATCH: Final = 4096


class LoraSettings(Model):
    """Low-rank adapter (PEFT)."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank r of the adapter's matrices."""
    alpha: int = Field(default=32, ge=1, le=1024)
    """The adapter is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is dropped in training."""
    target_modules: tuple[ModuleName, ...] = Field(
        default=(AUTO_TARGETS,),
        min_length=1,
        max_length=64,
    )
    """Last parts of the names of the modules that get an adapter, for example `q_proj`. `[Auto]` takes the projections
    of attention and MLP that the model has; of a mixture of experts, those of attention. The status names them."""

    @property
    def is_auto(self) -> bool:
        """Whether fetch chooses the modules."""
        return AUTO_TARGETS in self.target_modules


class AdvantageScale(StrEnum):
    """What a group's centred rewards are divided by."""

    GROUP = "Group"
    """The group's standard deviation (GRPO)."""
    BATCH = "Batch"
    """The batch's standard deviation."""
    NONE = "None"
    """Nothing (Dr. GRPO)."""


class LossAggregation(StrEnum):
    """How token losses become one number."""

    TOKEN_MEAN = "TokenMean"  # noqa: S105 - not a password
    """Over all tokens of an optimiser step (DAPO)."""
    SEQUENCE_MEAN = "SequenceMean"
    """Within each sequence, then over sequences (GRPO)."""
    CONSTANT = "Constant"
    """Sum divided by a constant length (Dr. GRPO)."""
    SEQUENCE_RATIO = "SequenceRatio"
    """SequenceMean with one ratio for a whole sequence: the geometric mean of the ratios of its tokens (GSPO)."""


class KlReference(StrEnum):
    """The policy that the KL term holds on to."""

    BASE = "Base"
    ITERATION_START = "IterationStart"


class KlSettings(Model):
    """KL regularisation by the k3 estimator."""

    coefficient: float = Field(default=0.0, ge=0, le=10)
    """Beta; 0 switches the term off and saves its forward pass."""
    reference: KlReference = KlReference.BASE


class ClipSettings(Model):
    """Bounds of the probability ratio."""

    low: float = Field(default=0.2, gt=0, lt=1)
    """Ratios below 1 - low are clipped."""
    high: float = Field(default=0.28, gt=0, le=10)
    """Ratios above 1 + high are clipped; more than `low` lets rare tokens grow (DAPO)."""
    dual: float | None = Field(default=None, gt=1, le=1000)
    """Ratios of tokens with a negative advantage count at most this much (dual clip). Default: no such limit."""


class RatioBand(Model):
    """Rows whose geometric-mean ratio before the first step lies outside are rejected: sampler and trainer disagree."""

    low: float = Field(default=0.5, gt=0, le=1)
    """Minimum ratio."""
    high: float = Field(default=2.0, ge=1, le=100)
    """Maximum ratio."""


class Checkpoints(Model):
    """When training saves what it has; the first rule that applies does."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps between checkpoints. None: no rule by steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Training time that a lost process may cost, in minutes. None: no rule by time."""


_CHECKPOINT_MINUTES: Final = 10.0
_RECORDED_CHECKPOINT_STEPS: Final = 8
_LEARNING_RATES: Final = {TrainingMethod.LORA: 1e-5, TrainingMethod.FULL: 1e-6}


class TrainingSettings(Model):
    """GRPO on recorded groups."""

    backend: TrainingBackend = TrainingBackend.AUTO
    method: TrainingMethod = TrainingMethod.LORA
    lora: LoraSettings | None = None
    """The adapter, for `method: LoRA`. Default: rank 16, alpha 32, no dropout, `targetModules: [Auto]`."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Learning rate of AdamW, constant. Default: 1e-5 for `method: LoRA`, 1e-6 for `method: Full`."""
    prompts_per_step: int = Field(default=8, ge=1, le=65_536)
    """Groups that one optimiser step consumes."""
    epochs: int = Field(default=1, ge=1, le=16, exclude_if=lambda epochs: epochs == 1)
    """Times that training goes over the groups of an iteration. From the second on the policy is no longer the one that
    wrote the answers; `clip` bounds how far they still move it. Cheaper than new groups, but they teach less."""
    micro_batch: int | None = Field(default=None, ge=1, le=4096)
    """Sequences in one forward and backward pass of one process, where the backend is TRL. Default: 4."""
    tokens_per_micro_batch: int | None = Field(default=None, ge=16, le=16_777_216)
    """Tokens in one forward and backward pass of one process, where the backend is Packed; a longer sequence gets its
    own. Default: 4096."""
    scale: AdvantageScale = AdvantageScale.GROUP
    aggregation: LossAggregation = LossAggregation.TOKEN_MEAN
    clip: ClipSettings = ClipSettings()
    kl: KlSettings = KlSettings()
    ratio_band: RatioBand = RatioBand()
    min_group_std: float = Field(default=1e-6, ge=0, le=1)
    """Groups whose rewards have a smaller standard deviation teach nothing and are dropped and counted."""
    noise_floor: float = Field(default=1.0, ge=0, le=100)
    """For `judging.votes` above 1: groups whose rewards have a standard deviation of at most this many standard errors
    of a reward, by the spread of the judge's votes, are dropped and counted too. 0 switches this off."""
    mask_truncated: bool = False
    """Truncated candidates count for the baseline but carry no loss."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """Norm to which gradients are clipped."""
    gradient_checkpointing: bool | None = Field(default=None, exclude_if=lambda chosen: chosen is None)
    """Compute activations again in the backward pass: less memory, about a third more time. Default: where they would
    not fit into the memory that is free when training begins, and always where the backend is TRL."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""
    optimizer_offload: OptimizerOffload = Field(
        default=OptimizerOffload.NONE, exclude_if=lambda offload: offload is OptimizerOffload.NONE
    )
    """Where masters and moments of all weights lie, for `method: Full` with `zeroStage` 2 or 3. `CPU` leaves the GPUs
    with weights and activations; a pod then needs 16 to 20 bytes a weight of memory, divided among the nodes, and steps
    take longer."""
    nodes: int = Field(default=1, ge=1, le=256)
    """Pods that train together, one a node."""
    gpus_per_node: int = Field(default=1, ge=1, le=16)
    """Training processes on each node; a machine without GPU runs them on the CPU."""
    checkpoint_minutes: float | None = Field(default=None, gt=0, le=1440, exclude_if=lambda minutes: minutes is None)
    """Training time, in minutes, that a lost process costs at most: a checkpoint is saved before more has passed since
    the last one. Default: 10, or no such limit where `checkpointSteps` is given."""
    checkpoint_steps: int | None = Field(default=None, ge=1, le=10_000)
    """Optimiser steps between checkpoints. Default: as `checkpointMinutes` says. SIGTERM saves one too, where the
    pod's grace period is long enough."""

    @property
    def adapter(self) -> LoraSettings:
        """`lora`, or its default."""
        return self.lora or LoraSettings()

    @property
    def checkpoints(self) -> Checkpoints:
        """When checkpoints are saved, with its default."""
        if self.checkpoint_steps is None and self.checkpoint_minutes is None:
            return Checkpoints(minutes=_CHECKPOINT_MINUTES)
        return Checkpoints(steps=self.checkpoint_steps, minutes=self.checkpoint_minutes)

    @property
    def may_offload(self) -> bool:
        """Whether `optimizerOffload: CPU` is for this training: DeepSpeed moves what ZeRO 2 or 3 has divided."""
        return self.method is TrainingMethod.FULL and self.zero_stage >= 2

    @property
    def rate(self) -> float:
        """`learning_rate`, or the default of the method."""
        return self.learning_rate or _LEARNING_RATES[self.method]

    @property
    def sequences_per_pass(self) -> int:
        """`micro_batch`, or its default."""
        return self.micro_batch or _MICRO_BATCH

    @property
    def tokens_per_pass(self) -> int:
        """`tokens_per_micro_batch`, or its default."""
        return self.tokens_per_micro_batch or _TOKENS_PER_MICRO_BATCH

    def with_defaults(self) -> Self:
        """The settings with every default written out, as a stage gets them: `Auto` stays, what is absent does not.

        When checkpoints are saved is told apart from them (`TrainParams.checkpoints`): it decides nothing about the
        policy. The number of steps remains here as it always was, so that the digest does.
        """
        return self.model_copy(
            update={
                "lora": self.adapter,
                "learning_rate": self.rate,
                "micro_batch": self.sequences_per_pass,
                "tokens_per_micro_batch": self.tokens_per_pass,
                "checkpoint_steps": self.checkpoint_steps or _RECORDED_CHECKPOINT_STEPS,
                "checkpoint_minutes": None,
            }
        )
