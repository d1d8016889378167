"""The parts of a run that a stage needs to know. The run file embeds these very models, so nothing is said twice."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, JsonValue

from dynalign_contract.agents import AgentsSettings
from dynalign_contract.base import Model
from dynalign_contract.endpoints import EndpointSettings
from dynalign_contract.objective import Aggregate


class DType(StrEnum):
    """Number format of weights and activations."""

    AUTO = "Auto"
    """BFloat16 on a GPU, Float32 on a CPU; sampler and trainer alike."""
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class EngineSettings(Model):
    """How the inference engine (vLLM) holds the model; the trainer takes `dtype` from here too."""

    dtype: DType = DType.AUTO
    max_length: int | None = Field(default=None, ge=64, le=1_048_576)
    """Context window in tokens, prompt and completion together. Default: the model's own, at most 4096."""
    memory_gib: int = Field(default=1, ge=1, le=1024)
    """Memory for the key-value cache on a CPU, GiB. A GPU gives 90 percent of its own."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """GPUs over which one copy of the model is split."""


_PROMPTS_URI: Final = r"^(pvc://[a-z0-9.-]+/.+|/.+|\./.+)$"
_PROMPTS_FORM: Final[dict[str, JsonValue]] = {"x-form": "pvc://claim/path, or a path: /folder/file or ./file"}

FacetValues = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=256)
]


LanguageCode = Annotated[
    str,
    Field(pattern=r"^[a-z]{2}$", max_length=16, json_schema_extra={"x-form": "a two-letter language code such as en"}),
]


class SeedSettings(Model):
    """What the author's tasks are seeded with."""

    facets: dict[str, FacetValues] = Field(default={}, max_length=32)
    """Values that replace the objective's own for these facets, at most 256 each."""
    balance: float = Field(default=1.0, ge=0, le=9)
    """Points of the critic's score that a draft loses in the choice when its facets' values have had their even share
    already; half of that counts half. 0 chooses by score alone."""


class ClusterSettings(Model):
    """Limits how many prompts may mean about the same, whatever their words.

    A prompt, without what its seed dictated, is the mean of its tokens' vectors in the base model's input embedding,
    rare tokens counting more, less what the objective's own sentences have in common. It needs no forward pass.
    """

    similarity: float = Field(default=0.6, gt=0, le=1)
    """Cosine from which a prompt belongs to the cluster of an earlier one."""
    most: int = Field(default=1, ge=1, le=65_536)
    """Prompts that a cluster may have, over all iterations and the held-out set."""


class DedupSettings(Model):
    """Near-duplicate removal, against this iteration, all earlier ones and the held-out set."""

    threshold: float = Field(default=0.7, gt=0, le=1)
    """Estimated Jaccard similarity of word shingles from which two prompts count as duplicates."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    """Words in a shingle."""
    permutations: int = Field(default=128, ge=16, le=1024)
    """Hash functions of MinHash: more estimate the similarity better, and take longer."""
    clusters: ClusterSettings | None = None
    """Near duplicates by meaning too. Default: by words only."""


class DecontaminationSettings(Model):
    """Keeps out of training what the evaluation asks: prompts that share a run of words with it.

    The tasks that ship with dynalign always belong to it, and for prompts that agents write the held-out ones too. What
    the seed has put at a prompt's beginning does not count against those.
    """

    words: int = Field(default=8, ge=0, le=64)
    """Length of a run that must not be shared, in words; 0 switches this off."""
    uri: str | None = Field(
        default=None,
        pattern=_PROMPTS_URI,
        max_length=1024,
        json_schema_extra=_PROMPTS_FORM,
    )
    """A file of further texts that must not leak into training, such as a benchmark's questions; written as
    `prompts.supplied.uri` is."""


class SuppliedPrompts(Model):
    """Prompts of the user's own."""

    uri: str = Field(pattern=_PROMPTS_URI, max_length=1024, json_schema_extra=_PROMPTS_FORM)
    """A .jsonl or .parquet file with `prompt` (text) or `messages` (chat): `pvc://claim/path`, or a path:
    `/folder/file` in the pod (`dynalign run`: on this machine), `./file` beside the run file (`dynalign run` only)."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of an iteration's prompts that is drawn from here; the agents write the rest."""


class Refresh(StrEnum):
    """When the agents write anew."""

    EVERY_ITERATION = "EveryIteration"
    ONCE = "Once"


class PromptSettings(Model):
    """The training prompts."""

    per_iteration: int = Field(default=64, ge=1, le=65_536)
    """Prompts that each iteration trains on."""
    refresh: Refresh = Refresh.EVERY_ITERATION
    agents: AgentsSettings = AgentsSettings()
    seeds: SeedSettings = SeedSettings()
    dedup: DedupSettings = DedupSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    languages: tuple[LanguageCode, ...] = Field(default=(), max_length=32)
    """ISO 639-1 codes such as `en`: prompts that are recognised as another language are dropped. Default: any."""
    supplied: SuppliedPrompts | None = None
    """Prompts of the user's own. Default: the agents write all of them."""
    held_out: int = Field(default=64, ge=1, le=65_536)
    """Prompts written once, never trained on, for the evaluation."""
    min_characters: int = Field(default=20, ge=1, le=10_000)
    """Shortest prompt that is kept, in characters."""
    max_tokens: int = Field(default=512, ge=8, le=131_072)
    """Longest prompt in tokens, chat template included; longer ones are dropped and counted."""
    min_yield: float = Field(default=0.5, gt=0, le=1)
    """The stage fails, quoting samples, when fewer than this share of the wanted prompts remain."""


class GenerationSettings(Model):
    """Sampling of candidates: a group for each prompt."""

    candidates: int = Field(default=8, ge=2, le=256)
    """Group size G."""
    max_tokens: int = Field(default=512, ge=1, le=131_072)
    """Longest completion, in tokens."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Of the policy's sampling; at 1 the candidates are drawn from the policy itself."""
    shards: int = Field(default=1, ge=1, le=256)
    """Workers over which the prompts are split."""
    prompts_per_part: int = Field(default=32, ge=1, le=4096)
    """Prompts in one Parquet part; a restarted worker keeps its finished parts."""


class Judge(StrEnum):
    """The weights that judge."""

    LIVE = "Live"
    """The policy that wrote the candidates (the paper)."""
    BASE = "Base"
    LAGGED = "Lagged"
    """The policy of `lag` iterations ago."""


class JudgingMethod(StrEnum):
    """How a score is read off the judge."""

    EXPECTED_SCORE = "ExpectedScore"
    """Expected value of one digit 0-9 under the judge's next-token distribution."""
    VOTES = "Votes"
    """Reasons are sampled first, `votes` times; the expected values of the digits after them are averaged."""


class Penalties(Model):
    """What is taken off the reward, which lies between 0 and 1."""

    truncated: float = Field(default=0.0, ge=0, le=1)
    """For an answer that reached `generation.maxTokens`."""
    refusal: float = Field(default=0.0, ge=0, le=1)
    """For an answer that opens with a refusal."""
    overlong: float = Field(default=0.0, ge=0, le=1)
    """For an answer of `generation.maxTokens`, falling linearly to 0 at `overlongFrom` of that length."""
    overlong_from: float = Field(default=0.8, ge=0, lt=1)
    """Share of `generation.maxTokens` from which `overlong` takes something off."""
    language_switch: float = Field(default=0.0, ge=0, le=1)
    """For an answer in another language than its prompt; a dozen letters of each are needed to tell."""


class CanarySettings(Model):
    """Answers that deserve nothing, scored every iteration to see whether the judge can still be trusted."""

    prompts: int = Field(default=8, ge=0, le=1024)
    """Prompts for which every kind of canary is made; 0 switches them off."""
    injections: int = Field(default=16, ge=0, le=1024)
    """Answers that try to give orders to the judge, drawn anew in every iteration from a collection that ships with
    dynalign and dealt out over these prompts; 0 leaves them out."""


class OnUnfitJudge(StrEnum):
    """What happens when the judge fails its gates."""

    CONTINUE = "Continue"
    """Go on with its rewards; the log and the metric `unfit` tell."""
    STOP = "Stop"
    USE_BASE = "UseBase"
    """Score the iteration again with the base model as judge."""


class JudgeGates(Model):
    """When the judge counts as unfit. Unset gates are measured and reported only."""

    min_canary_margin: float | None = Field(default=None, ge=-1, le=1)
    """Least mean reward of real answers minus mean reward of canaries."""
    min_canary_auc: float | None = Field(default=None, ge=0, le=1)
    """Least probability that a real answer outscores a canary."""
    min_injection_margin: float | None = Field(default=None, ge=-1, le=1)
    """Least mean reward of real answers minus mean reward of answers that give orders to the judge."""
    min_base_agreement: float | None = Field(default=None, ge=-1, le=1)
    """Least rank agreement (Kendall's tau within groups, mean over `secondOpinions`) of a trained judge with the base
    model as judge."""
    max_failed_share: float = Field(default=0.5, ge=0, le=1)
    """Largest share of candidates left without a reward."""
    on_unfit: OnUnfitJudge = OnUnfitJudge.STOP


class JudgingSettings(Model):
    """How the policy's candidates are rewarded."""

    method: JudgingMethod = JudgingMethod.EXPECTED_SCORE
    judge: Judge = Judge.LIVE
    lag: int = Field(default=1, ge=1, le=64)
    """For `judge: Lagged`: how many iterations the judge is behind."""
    votes: int = Field(default=1, ge=1, le=32)
    """For `method: Votes`: how often reasons are sampled for every aspect of an answer."""
    rationale_tokens: int = Field(default=96, ge=8, le=4096)
    """For `method: Votes`: the longest reasons, in tokens."""
    aggregate: Aggregate | None = None
    """How the aspects of an answer become one reward. Default: the objective's own."""
    min_mass: float = Field(default=0.01, ge=0, le=1)
    """Least probability that the judge's next token is a digit at all; below it the score counts as failed."""
    penalties: Penalties = Penalties()
    canaries: CanarySettings = CanarySettings()
    second_opinions: int = Field(default=8, ge=0, le=1024)
    """Prompts whose candidates the base model judges too, once the judge is a trained policy; their agreement is
    reported, and may be a gate. 0 switches it off."""
    gates: JudgeGates = JudgeGates()


class TrainingBackend(StrEnum):
    """Which trainer computes the loss."""

    PACKED = "Packed"
    """Without padding: rows share micro-batches by token budget, candidates of one prompt compute it once."""
    TRL = "TRL"
    """TRL's GRPOTrainer replaying the recorded groups."""


class TrainingMethod(StrEnum):
    """Which weights are trained."""

    LORA = "LoRA"


ModuleName = Annotated[str, Field(min_length=1, max_length=128)]


class LoraSettings(Model):
    """Low-rank adapter (PEFT)."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank r of the adapter's matrices."""
    alpha: int = Field(default=32, ge=1, le=1024)
    """The adapter is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is dropped in training."""
    target_modules: tuple[ModuleName, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        max_length=64,
    )
    """Last parts of the names of the modules that get an adapter, for example `q_proj`."""


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
    """As SequenceMean, with one ratio for a whole sequence: the geometric mean of its tokens' (GSPO)."""


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
    """Least ratio."""
    high: float = Field(default=2.0, ge=1, le=100)
    """Largest ratio."""


class TrainingSettings(Model):
    """GRPO on recorded groups."""

    backend: TrainingBackend = TrainingBackend.PACKED
    method: TrainingMethod = TrainingMethod.LORA
    lora: LoraSettings = LoraSettings()
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Of AdamW, constant."""
    prompts_per_step: int = Field(default=8, ge=1, le=65_536)
    """Groups that one optimiser step consumes."""
    micro_batch: int = Field(default=4, ge=1, le=4096)
    """Sequences in one forward and backward pass of one process, for `backend: TRL`."""
    tokens_per_micro_batch: int = Field(default=4096, ge=16, le=16_777_216)
    """Tokens in one forward and backward pass of one process, for `backend: Packed`; a longer sequence gets its own."""
    scale: AdvantageScale = AdvantageScale.GROUP
    aggregation: LossAggregation = LossAggregation.TOKEN_MEAN
    clip: ClipSettings = ClipSettings()
    kl: KlSettings = KlSettings()
    ratio_band: RatioBand = RatioBand()
    min_group_std: float = Field(default=1e-6, ge=0, le=1)
    """Groups whose rewards have a smaller standard deviation teach nothing and are dropped and counted."""
    mask_truncated: bool = False
    """Truncated candidates count for the baseline but carry no loss."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """Norm to which gradients are clipped."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, about a third more time."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""
    nodes: int = Field(default=1, ge=1, le=256)
    """Pods that train together, one a node."""
    gpus_per_node: int = Field(default=1, ge=1, le=16)
    """Training processes on each node; a machine without GPU runs them on the CPU."""
    checkpoint_steps: int = Field(default=8, ge=1, le=10_000)
    """Optimiser steps between checkpoints; SIGTERM saves one too."""


class WinRateMethod(StrEnum):
    """How two answers are compared."""

    PAIRWISE = "Pairwise"
    """The judge sees both, in both orders; an inconsistent verdict is a tie."""
    POINTWISE = "Pointwise"
    """Each answer is scored alone, as in training; suits judges too small to compare."""


class EvaluationJudge(StrEnum):
    """Who compares the answers."""

    BASE = "Base"
    LIVE = "Live"
    """The policy under evaluation itself: reported as such, never the headline."""
    ENDPOINT = "Endpoint"
    """A model behind an OpenAI-compatible server, as `endpoint` says."""


class WinRateSettings(Model):
    """Held-out win rate."""

    method: WinRateMethod = WinRateMethod.PAIRWISE
    judges: tuple[EvaluationJudge, ...] = Field(
        default=(EvaluationJudge.BASE, EvaluationJudge.LIVE), min_length=1, max_length=3
    )
    """The first one's win rate is the headline and decides gates."""
    endpoint: EndpointSettings | None = None
    """For `Endpoint` among the judges: the server."""
    max_tokens: int | None = Field(default=None, ge=1, le=131_072)
    """Longest answer; default: `generation.maxTokens`."""
    tie_margin: float = Field(default=0.0, ge=0, le=1)
    """Differences of the judge's preference (Pairwise) or reward (Pointwise) up to this count as ties."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the interval around the win rate, and of the verdict that the model got worse."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Bootstrap resamples over prompts."""


OWN_TASKS: Final = ("dynalign_choices", "dynalign_instructions")
"""Tasks that ship with dynalign."""
OWN_TASK_PREFIX: Final = "dynalign_"

TaskName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=52,
        json_schema_extra={"x-form": "the name of a task, for example dynalign_choices or ifeval"},
    ),
]


class CapabilitySettings(Model):
    """General capability, measured by tasks of lm-evaluation-harness through the stage's own engine."""

    tasks: tuple[TaskName, ...] = Field(default=(), max_length=16)
    """`dynalign_choices` (72 multiple-choice questions) and `dynalign_instructions` (64 instructions that a program can
    check) ship with dynalign and need no network; every other task of the harness, for example `ifeval`, needs its data
    in the pod's Hugging Face cache. Default: none, capability is not measured."""
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    """Items of each task, from its first. Default: all."""
    max_drop: float = Field(default=0.02, ge=0, lt=1)
    """Largest drop of the mean score below the base model's that is put up with. A larger one, with `confidence`, is a
    regression."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided: of the verdict, and of each end of the intervals."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Paired bootstrap resamples over items."""


class OnRegression(StrEnum):
    """What happens when the evaluation finds that the model got worse, with confidence."""

    CONTINUE = "Continue"
    STOP = "Stop"
    ROLLBACK = "Rollback"
    """Go on from the best iteration so far."""


class Ratings(StrEnum):
    """How policies of several iterations are rated from the comparisons that the win rates are made of."""

    NONE = "None"
    BRADLEY_TERRY = "BradleyTerry"
    """Points above the base model as in chess: 400 for odds of 10 to 1. No further comparison is made."""


class EvaluationSettings(Model):
    """Proof that the model got better."""

    every: int = Field(default=1, ge=1, le=1000)
    """Evaluate every so many iterations; the last one always."""
    win_rate: WinRateSettings = WinRateSettings()
    capability: CapabilitySettings = CapabilitySettings()
    ratings: Ratings = Ratings.NONE
    on_regression: OnRegression = OnRegression.CONTINUE
