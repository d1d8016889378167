"""Rules that hold between fields, each said twice: in CEL for the API server, in Python for `dynalign validate`.

One list feeds both, and tests put every rule's sentence before `dynalign validate` and before a real API server. What
holds in a cluster only is said in CEL alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.agents import AgentModel
from dynalign_contract.settings import (
    OWN_TASK_PREFIX,
    OWN_TASKS,
    CanarySettings,
    CapabilitySettings,
    EvaluationJudge,
    Judge,
    JudgingMethod,
    JudgingSettings,
    OnUnfitJudge,
    TrainingBackend,
    TrainingSettings,
)
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.v1alpha1 import BUNDLED_MODELS, AccessMode, StorageSpec, parse_duration


@dataclass(frozen=True)
class ClusterRule:
    """What must hold for the object at `at` in a cluster; `dynalign run` may know how to do without."""

    at: str
    """Path from the root to the object; `*` stands for every property, `[]` for every item of a list."""
    field: str
    """The field, relative to `at`, that the message is about; empty for the object itself."""
    cel: str
    """The rule over `self`, in the Common Expression Language."""
    message: str
    """What to write instead: the rest of a sentence that begins with the field."""


@dataclass(frozen=True)
class Rule(ClusterRule):
    """What must hold everywhere."""

    holds: Callable[[Any], bool]
    """The same rule over the model of the object at `at`."""


@dataclass(frozen=True)
class Transition:
    """What must hold between an applied object and its update."""

    at: str
    cel: str
    message: str
    holds: Callable[[Any, Any], bool]
    """Over the old and the new model of the object at `at`."""


_DEFAULT_SIZE: Final[str] = StorageSpec().size
_DEFAULT_CAPABILITY: Final = CapabilitySettings()
_TASK_WINDOW: Final = 256
"""Least context window for tasks, in tokens: half of it is for what the model writes."""
_RATIONALE_TOKENS: Final[int] = JudgingSettings().rationale_tokens
_INJECTIONS: Final[int] = CanarySettings().injections
_MICRO_BATCH: Final = TrainingSettings().micro_batch
_TOKENS_PER_MICRO_BATCH: Final = TrainingSettings().tokens_per_micro_batch


def _immutable(at: str) -> Transition:
    return Transition(
        at=at,
        cel="self == oldSelf",
        message="cannot be changed once the run exists; apply a run of another name instead",
        holds=lambda old, new: bool(old == new),
    )


TRANSITIONS: Final = (
    _immutable("spec.model"),
    _immutable("spec.objective"),
    _immutable("spec.storage"),
    Transition(
        at="spec.iterations",
        cel="self >= oldSelf",
        message="may be raised but not lowered, for the run may have done them; set spec.suspend to stop it",
        holds=lambda old, new: bool(new >= old),
    ),
)

_MODEL_RULES: Final = (
    Rule(
        at="spec.model",
        field="uri",
        cel="!self.uri.startsWith('bundled://') || self.uri in ["
        + ", ".join(f"'bundled://{name}'" for name in BUNDLED_MODELS)
        + "]",
        message="names no bundled model; there is " + " and ".join(f"bundled://{name}" for name in BUNDLED_MODELS),
        holds=lambda model: (
            not model.uri.startswith("bundled://") or model.uri.removeprefix("bundled://") in BUNDLED_MODELS
        ),
    ),
    Rule(
        at="spec.model",
        field="tokenSecretRef",
        cel="!has(self.tokenSecretRef) || self.uri.startsWith('hf://')",
        message="is for models from a hub only; remove it, or write an hf:// uri",
        holds=lambda model: model.token_secret_ref is None or model.uri.startswith("hf://"),
    ),
    Rule(
        at="spec.objective",
        field="",
        cel="!(has(self.builtin) && has(self.configMapRef))",
        message="has both builtin and configMapRef; keep one of them",
        holds=lambda objective: objective.builtin is None or objective.config_map_ref is None,
    ),
)

_LENGTH_RULES: Final = (
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || self.generation.maxTokens < self.engine.maxLength",
        message="leaves no room for a prompt beside generation.maxTokens; raise it, or lower generation.maxTokens",
        holds=lambda s: s.engine.max_length is None or s.generation.max_tokens < s.engine.max_length,
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || self.generation.maxTokens >= self.engine.maxLength || "
        "self.prompts.maxTokens + self.generation.maxTokens <= self.engine.maxLength",
        message="is less than prompts.maxTokens + generation.maxTokens together; raise it, or lower one of them",
        holds=lambda s: (
            s.engine.max_length is None
            or s.generation.max_tokens >= s.engine.max_length
            or s.prompts.max_tokens + s.generation.max_tokens <= s.engine.max_length
        ),
    ),
    Rule(
        at="spec",
        field="evaluation.winRate.maxTokens",
        cel="!has(self.engine.maxLength) || !has(self.evaluation.winRate.maxTokens) || "
        "self.evaluation.winRate.maxTokens < self.engine.maxLength",
        message="leaves no room for a prompt in engine.maxLength; lower it",
        holds=lambda s: (
            s.engine.max_length is None
            or s.evaluation.win_rate.max_tokens is None
            or s.evaluation.win_rate.max_tokens < s.engine.max_length
        ),
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || size(self.evaluation.capability.tasks) == 0 || "
        f"self.engine.maxLength >= {_TASK_WINDOW}",
        message=f"is too small for the tasks of evaluation.capability; raise it to at least {_TASK_WINDOW}, or remove "
        "the tasks",
        holds=lambda s: (
            s.engine.max_length is None or not s.evaluation.capability.tasks or s.engine.max_length >= _TASK_WINDOW
        ),
    ),
    Rule(
        at="spec",
        field="generation.shards",
        cel="self.generation.shards <= self.prompts.perIteration",
        message="is more than prompts.perIteration; give every shard at least one prompt",
        holds=lambda s: s.generation.shards <= s.prompts.per_iteration,
    ),
)

_PROMPT_RULES: Final = (
    Rule(
        at="spec.prompts.supplied",
        field="uri",
        cel="self.uri.endsWith('.jsonl') || self.uri.endsWith('.parquet')",
        message="must name a file that ends in .jsonl or .parquet",
        holds=lambda supplied: supplied.uri.endswith((".jsonl", ".parquet")),
    ),
    Rule(
        at="spec.prompts.decontamination",
        field="uri",
        cel="!has(self.uri) || self.uri.endsWith('.jsonl') || self.uri.endsWith('.parquet')",
        message="must name a file that ends in .jsonl or .parquet",
        holds=lambda found: found.uri is None or found.uri.endswith((".jsonl", ".parquet")),
    ),
    Rule(
        at="spec.prompts.decontamination",
        field="uri",
        cel="!has(self.uri) || self.words > 0",
        message="has an effect only when words is more than 0; raise words, or remove uri",
        holds=lambda found: found.uri is None or found.words > 0,
    ),
    Rule(
        at="spec.prompts",
        field="languages",
        cel="self.languages.all(x, self.languages.exists_one(y, x == y))",
        message="names a language twice; name each once",
        holds=lambda prompts: len(set(prompts.languages)) == len(prompts.languages),
    ),
    Rule(
        at="spec.prompts.agents.*",
        field="endpoint",
        cel="self.model != 'Endpoint' || has(self.endpoint)",
        message="is missing with model: Endpoint; give it a url and a model, or write model: Policy",
        holds=lambda agent: agent.model is not AgentModel.ENDPOINT or agent.endpoint is not None,
    ),
    Rule(
        at="spec.prompts.agents.*",
        field="endpoint",
        cel="self.model == 'Endpoint' || !has(self.endpoint)",
        message="has an effect with model: Endpoint only; set model to Endpoint, or remove endpoint",
        holds=lambda agent: agent.model is AgentModel.ENDPOINT or agent.endpoint is None,
    ),
    Rule(
        at="spec.prompts.agents.reviser",
        field="mendFrom",
        cel="self.mendFrom < self.mendBelow",
        message="is not below mendBelow, so no draft would be mended; lower it, or raise mendBelow",
        holds=lambda reviser: reviser.mend_from < reviser.mend_below,
    ),
    Rule(
        at="spec.prompts.agents",
        field="critic.minScore",
        cel="!has(self.reviser) || self.critic.minScore <= self.reviser.mendBelow",
        message="is above reviser.mendBelow, so drafts between the two would be dropped without being mended; lower "
        "it, or raise reviser.mendBelow",
        holds=lambda agents: agents.reviser is None or agents.critic.min_score <= agents.reviser.mend_below,
    ),
)

_LEARNING_RULES: Final = (
    Rule(
        at="spec.judging",
        field="lag",
        cel="self.judge == 'Lagged' || self.lag == 1",
        message="has an effect with judge: Lagged only; set judge to Lagged, or remove lag",
        holds=lambda judging: judging.judge is Judge.LAGGED or judging.lag == 1,
    ),
    Rule(
        at="spec.judging",
        field="votes",
        cel="self.method == 'Votes' || self.votes == 1",
        message="has an effect with method: Votes only; set method to Votes, or remove votes",
        holds=lambda judging: judging.method is JudgingMethod.VOTES or judging.votes == 1,
    ),
    Rule(
        at="spec.judging",
        field="rationaleTokens",
        cel=f"self.method == 'Votes' || self.rationaleTokens == {_RATIONALE_TOKENS}",
        message="has an effect with method: Votes only; set method to Votes, or remove rationaleTokens",
        holds=lambda judging: judging.method is JudgingMethod.VOTES or judging.rationale_tokens == _RATIONALE_TOKENS,
    ),
    Rule(
        at="spec.judging.canaries",
        field="injections",
        cel=f"self.prompts > 0 || self.injections in [0, {_INJECTIONS}]",
        message="has an effect only when prompts is more than 0; raise prompts, or remove injections",
        holds=lambda canaries: canaries.prompts > 0 or canaries.injections in (0, _INJECTIONS),
    ),
    Rule(
        at="spec.judging",
        field="gates.minInjectionMargin",
        cel="!has(self.gates.minInjectionMargin) || (self.canaries.prompts > 0 && self.canaries.injections > 0)",
        message="needs injected answers; set canaries.prompts and canaries.injections to 1 or more, or remove the gate",
        holds=lambda judging: (
            judging.gates.min_injection_margin is None
            or (judging.canaries.prompts > 0 and judging.canaries.injections > 0)
        ),
    ),
    Rule(
        at="spec.judging",
        field="gates.minBaseAgreement",
        cel="!has(self.gates.minBaseAgreement) || self.secondOpinions > 0",
        message="needs second opinions; set secondOpinions to 1 or more, or remove the gate",
        holds=lambda judging: judging.gates.min_base_agreement is None or judging.second_opinions > 0,
    ),
    Rule(
        at="spec.judging",
        field="gates.minBaseAgreement",
        cel="!(self.judge == 'Base' && has(self.gates.minBaseAgreement))",
        message="has no effect with judge: Base, which always agrees with itself; remove it, or choose another judge",
        holds=lambda judging: not (judging.judge is Judge.BASE and judging.gates.min_base_agreement is not None),
    ),
    Rule(
        at="spec.judging",
        field="gates",
        cel="self.canaries.prompts > 0 || !(has(self.gates.minCanaryMargin) || has(self.gates.minCanaryAuc))",
        message="has a canary gate, but canaries.prompts is 0; set canaries.prompts to 1 or more, or remove the gate",
        holds=lambda judging: (
            judging.canaries.prompts > 0
            or (judging.gates.min_canary_margin is None and judging.gates.min_canary_auc is None)
        ),
    ),
    Rule(
        at="spec.judging",
        field="gates.onUnfit",
        cel="!(self.judge == 'Base' && self.gates.onUnfit == 'UseBase')",
        message="is UseBase, but the base model is the judge already; write Stop, or choose another judge",
        holds=lambda judging: not (judging.judge is Judge.BASE and judging.gates.on_unfit is OnUnfitJudge.USE_BASE),
    ),
    Rule(
        at="spec.training.lora",
        field="targetModules",
        cel="self.targetModules.all(x, self.targetModules.exists_one(y, x == y))",
        message="names a module twice; name each once",
        holds=lambda lora: len(set(lora.target_modules)) == len(lora.target_modules),
    ),
    Rule(
        at="spec.training",
        field="microBatch",
        cel=f"self.backend == 'TRL' || self.microBatch == {_MICRO_BATCH}",
        message="has an effect with backend: TRL only; set backend to TRL, or write tokensPerMicroBatch instead",
        holds=lambda training: training.backend is TrainingBackend.TRL or training.micro_batch == _MICRO_BATCH,
    ),
    Rule(
        at="spec.training",
        field="tokensPerMicroBatch",
        cel=f"self.backend == 'Packed' || self.tokensPerMicroBatch == {_TOKENS_PER_MICRO_BATCH}",
        message="has an effect with backend: Packed only; set backend to Packed, or write microBatch instead",
        holds=lambda training: (
            training.backend is TrainingBackend.PACKED or training.tokens_per_micro_batch == _TOKENS_PER_MICRO_BATCH
        ),
    ),
    Rule(
        at="spec.training.clip",
        field="dual",
        cel="!has(self.dual) || double(self.dual) > 1.0 + double(self.high)",
        message="must be more than 1 + high, where the ratio is clipped already; raise dual, or remove it",
        holds=lambda clip: clip.dual is None or clip.dual > 1 + clip.high,
    ),
    Rule(
        at="spec.training.ratioBand",
        field="",
        cel="self.low < self.high",
        message="has low equal to high, which would reject every row; lower low or raise high",
        holds=lambda band: band.low < band.high,
    ),
    Rule(
        at="spec.evaluation.winRate",
        field="judges",
        cel="self.judges.all(x, self.judges.exists_one(y, x == y))",
        message="names a judge twice; name each once",
        holds=lambda win_rate: len(set(win_rate.judges)) == len(win_rate.judges),
    ),
    Rule(
        at="spec.evaluation.winRate",
        field="endpoint",
        cel="!('Endpoint' in self.judges) || has(self.endpoint)",
        message="is missing with Endpoint among the judges; give it a url and a model, or take Endpoint out of judges",
        holds=lambda win_rate: EvaluationJudge.ENDPOINT not in win_rate.judges or win_rate.endpoint is not None,
    ),
    Rule(
        at="spec.evaluation.winRate",
        field="endpoint",
        cel="'Endpoint' in self.judges || !has(self.endpoint)",
        message="has an effect with Endpoint among the judges only; add Endpoint to judges, or remove endpoint",
        holds=lambda win_rate: EvaluationJudge.ENDPOINT in win_rate.judges or win_rate.endpoint is None,
    ),
)

_CAPABILITY_RULES: Final = (
    Rule(
        at="spec.evaluation.capability",
        field="tasks",
        cel="self.tasks.all(x, self.tasks.exists_one(y, x == y))",
        message="names a task twice; name each once",
        holds=lambda capability: len(set(capability.tasks)) == len(capability.tasks),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="tasks",
        cel=f"self.tasks.all(x, !x.startsWith('{OWN_TASK_PREFIX}') || x in ["
        + ", ".join(f"'{name}'" for name in OWN_TASKS)
        + "])",
        message=f"names none of dynalign's own tasks, {' and '.join(OWN_TASKS)}; write one of these, or one of "
        "lm-evaluation-harness",
        holds=lambda capability: all(
            name in OWN_TASKS for name in capability.tasks if name.startswith(OWN_TASK_PREFIX)
        ),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="limit",
        cel="!has(self.limit) || size(self.tasks) > 0",
        message="has an effect with tasks only; name tasks, for example dynalign_choices, or remove limit",
        holds=lambda capability: capability.limit is None or bool(capability.tasks),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="maxDrop",
        cel=f"self.maxDrop == {_DEFAULT_CAPABILITY.max_drop} || size(self.tasks) > 0",
        message="gates nothing without tasks; name tasks, for example dynalign_choices, or remove maxDrop",
        holds=lambda capability: capability.max_drop == _DEFAULT_CAPABILITY.max_drop or bool(capability.tasks),
    ),
)

_STORAGE_RULES: Final = (
    Rule(
        at="spec.storage",
        field="existingClaim",
        cel=f"!has(self.existingClaim) || (string(self.size) == '{_DEFAULT_SIZE}' && !has(self.storageClassName))",
        message="is used as it is; remove size and storageClassName, which are for a new claim",
        holds=lambda storage: (
            storage.existing_claim is None or (storage.size == _DEFAULT_SIZE and storage.storage_class_name is None)
        ),
    ),
    Rule(
        at="spec",
        field="storage.accessMode",
        cel="self.training.nodes == 1 || self.storage.accessMode == 'ReadWriteMany'",
        message="must be ReadWriteMany when training.nodes is more than 1, for every node mounts the volume; set it, "
        "or set training.nodes to 1",
        holds=lambda s: s.training.nodes == 1 or s.storage.access_mode is AccessMode.READ_WRITE_MANY,
    ),
    Rule(
        at="spec",
        field="storage.accessMode",
        cel="self.generation.shards == 1 || self.storage.accessMode == 'ReadWriteMany'",
        message="must be ReadWriteMany when generation.shards is more than 1, for every shard may get a node of its "
        "own; set it, or set generation.shards to 1",
        holds=lambda s: s.generation.shards == 1 or s.storage.access_mode is AccessMode.READ_WRITE_MANY,
    ),
)

_POD_RULES: Final = (
    Rule(
        at="spec.stages.*.resources",
        field="requests",
        cel="self.requests.all(k, !(k in self.limits) || "
        "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        message="asks for more than limits allows; lower the request or raise the limit",
        holds=lambda resources: all(
            parse_quantity(amount) <= parse_quantity(resources.limits[name])
            for name, amount in resources.requests.items()
            if name in resources.limits
        ),
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="value",
        cel="self.operator != 'Exists' || !has(self.value)",
        message="must be absent with operator: Exists; remove it, or write operator: Equal",
        holds=lambda toleration: toleration.operator != "Exists" or toleration.value is None,
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="key",
        cel="has(self.key) || self.operator == 'Exists'",
        message="is missing; name a taint's key, or write operator: Exists to put up with every taint",
        holds=lambda toleration: toleration.key is not None or toleration.operator == "Exists",
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="tolerationSeconds",
        cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="has an effect with effect: NoExecute only; set the effect, or remove it",
        holds=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
    ),
)


def _lasts(name: str, attribute: str) -> Rule:
    return Rule(
        at="spec.policy",
        field=name,
        cel=f"self.{name}.matches('[1-9]')",
        message="must be longer than nothing",
        holds=lambda policy: parse_duration(getattr(policy, attribute)).total_seconds() > 0,
    )


def _is_no_relative_path(at: str, remedy: str) -> ClusterRule:
    return ClusterRule(
        at=at,
        field="uri",
        cel="!has(self.uri) || !self.uri.startsWith('./')",
        message="starts at the run file's folder, which no pod can see; put it on a PersistentVolumeClaim and write "
        f"pvc://claim/path{remedy}",
    )


CLUSTER_RULES: Final = (
    _is_no_relative_path("spec.model", ", or write hf://org/name"),
    _is_no_relative_path("spec.prompts.supplied", ""),
    _is_no_relative_path("spec.prompts.decontamination", ""),
)

RULES: Final[tuple[Rule, ...]] = (
    *_MODEL_RULES,
    *_LENGTH_RULES,
    *_PROMPT_RULES,
    *_LEARNING_RULES,
    *_CAPABILITY_RULES,
    *_STORAGE_RULES,
    *_POD_RULES,
    _lasts("pendingTimeout", "pending_timeout"),
    _lasts("stallTimeout", "stall_timeout"),
    _lasts("deadline", "deadline"),
)
