"""StageConfig of a step, built from spec and status: parameters, weights, and input artifacts with digests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dynalign_contract.agents import AgentModel
from dynalign_contract.config import (
    EvaluateParams,
    ExportParams,
    FetchParams,
    GenerateParams,
    IterationSummary,
    JudgeParams,
    Params,
    Policy,
    PromptsParams,
    ReportParams,
    RolloutParams,
    RolloutPart,
    StageConfig,
    TrainParams,
)
from dynalign_contract.inputs import EVALUATIONS, HISTORY, Input
from dynalign_contract.objective import Objective
from dynalign_contract.preflight import Preflight
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import OnRegression, Ratings, Refresh, columns_of_rewards
from dynalign_contract.stages import SHARDED_STAGES, Stage, iteration_of_part
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec
from dynalign_operator.planning.errors import MissingArtifactError
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.policies import (
    BASE,
    exported_policy,
    judge_policy,
    panel_policies,
    start_policy,
    trained_policy,
)
from dynalign_operator.planning.run_facts import brief_facts_of
from dynalign_operator.planning.sequence import rollout_stages
from dynalign_operator.planning.stage_status import iteration_status, stage_status


@dataclass(frozen=True)
class _StageInputs:
    """Input of the functions that build a stage's parameters."""

    spec: AlignmentRunSpec
    status: AlignmentRunStatus
    objective: Objective
    iteration: int
    made: frozenset[Stage] = frozenset()
    """Stages of the iteration whose artifacts the same Job makes: they are no inputs yet."""

    def made_before(self, name: Input, stage: Stage, iteration: int) -> dict[str, ArtifactRef]:
        """The artifact of a stage as an input, unless the same Job makes it."""
        if iteration == self.iteration and stage in self.made:
            return {}
        if stage is Stage.PROMPTS:
            return {name: _prompts_of(self.status, iteration)}
        return {name: _artifact(self.status, Step(stage, iteration))}

    @property
    def start(self) -> Policy:
        return start_policy(self.spec, self.status, self.iteration)


@dataclass(frozen=True)
class _StageParams:
    """A stage's parameters, the policies that it loads, and its input artifacts beside these and the model."""

    params: Params
    policies: tuple[Policy, ...] = ()
    inputs: Mapping[str, ArtifactRef] = field(default_factory=dict)


def build_stage_config(
    run: AlignmentRun, status: AlignmentRunStatus, step: Step, attempt: int, objective: Objective
) -> StageConfig:
    """The StageConfig of one attempt. Raises MissingArtifactError when the status lacks an input.

    Adapters appear twice: in `params` as the weights of a part, in `inputs` under their version, so that they are
    verified like every other input.
    """
    spec = run.spec
    given = _StageInputs(spec, status, objective, step.iteration or 0)
    parts = _rollout(given) if step.stage is Stage.ROLLOUT else _BUILDERS[step.stage](given)
    return StageConfig(
        run=run.metadata.name,
        iteration=step.iteration,
        attempt=attempt,
        shards=spec.generation.shards if step.stage in SHARDED_STAGES else 1,
        seed=spec.seed,
        engine=spec.engine,
        chat=spec.model.chat,
        inputs={} if step.stage is Stage.ROLLOUT else _inputs_of(given, step.stage, parts),
        params=parts.params,
    )


def _inputs_of(given: _StageInputs, stage: Stage, parts: _StageParams) -> dict[str, ArtifactRef]:
    """Every input of a stage that is there: the model, its own inputs, and its policies."""
    model: dict[str, ArtifactRef] = (
        {} if stage is Stage.FETCH else {Input.MODEL: _artifact(given.status, Step(Stage.FETCH))}
    )
    adapters = {policy.version: policy.adapter for policy in parts.policies if policy.adapter is not None}
    return {str(name): artifact for name, artifact in {**model, **parts.inputs, **adapters}.items()}


def _rollout(given: _StageInputs) -> _StageParams:
    """The stages that are left to do of those of a rollout, as one Job's parts."""
    stages = rollout_stages(given.spec, given.status, given.iteration)
    given = replace(given, made=frozenset(stages))
    ends = Stage.EVALUATE in stages and given.spec.evaluation.on_regression is not OnRegression.CONTINUE
    return _StageParams(RolloutParams(parts=tuple(_part(given, stage) for stage in stages), ends_on_regression=ends))


def _part(rollout: _StageInputs, stage: Stage) -> RolloutPart:
    given = replace(rollout, iteration=iteration_of_part(stage, rollout.iteration))
    parts = _BUILDERS[stage](given)
    made = {str(name): source for name, source in _MADE_BY.get(stage, {}).items() if source in given.made}
    if not isinstance(parts.params, PromptsParams | GenerateParams | JudgeParams | EvaluateParams):
        raise TypeError(f"{stage} is no part of a rollout")
    return RolloutPart(params=parts.params, inputs=_inputs_of(given, stage, parts), made=made)


def build_report_config(run: AlignmentRun, iteration: int | None, attempt: int) -> StageConfig:
    """The StageConfig of one attempt of the report; `iteration` is the latest that has finished.

    It has no inputs: the report shows what can be read, and says what cannot.
    """
    return StageConfig(
        run=run.metadata.name,
        attempt=attempt,
        params=ReportParams(facts=brief_facts_of(run), iteration=iteration, tracking=run.spec.tracking),
    )


def build_preflight(spec: AlignmentRunSpec, objective: Objective | None) -> Preflight:
    """The settings that fetch, and `dynalign validate`, hold against the model and the user's files.

    An objective that is not at hand is left out.
    """
    return Preflight(
        prompts=spec.prompts,
        training=spec.training.with_defaults(),
        max_tokens=spec.generation.max_tokens,
        thinking_tokens=spec.generation.thinking_tokens,
        rewards=spec.rewards,
        objective=objective,
        judging=spec.judging,
        win_rate=spec.evaluation.win_rate,
    )


def _fetch(given: _StageInputs) -> _StageParams:
    spec = given.spec
    tasks = spec.evaluation.capability.foreign_tasks
    params = FetchParams(
        uri=spec.model.uri,
        tasks=tasks,
        quantized=spec.model.quantized,
        s3=spec.model.s3,
        oci=spec.model.oci,
        preflight=build_preflight(spec, given.objective),
    )
    return _StageParams(params)


def _prompts(given: _StageInputs) -> _StageParams:
    prompts = given.spec.prompts
    policy = given.start if AgentModel.POLICY in prompts.agents.models else BASE
    params = PromptsParams(
        objective=given.objective,
        prompts=prompts,
        policy=policy,
        reserve_tokens=given.spec.generation.completion_tokens,
        columns=columns_of_rewards(given.spec.rewards),
    )
    history = {
        HISTORY.of(entry.index): entry.prompts
        for entry in given.status.iterations
        if entry.index < given.iteration and entry.prompts is not None
    }
    held_out: dict[str, ArtifactRef] = {Input.HELD_OUT: _prompts_of(given.status, 0)} if given.iteration else {}
    return _StageParams(params, (policy,), {**held_out, **history})


def _generate(given: _StageInputs) -> _StageParams:
    source = 0 if given.spec.prompts.refresh is Refresh.ONCE else given.iteration
    return _StageParams(
        GenerateParams(generation=given.spec.generation, policy=given.start),
        (given.start,),
        given.made_before(Input.PROMPTS, Stage.PROMPTS, source),
    )


def _judge(given: _StageInputs) -> _StageParams:
    judge = judge_policy(given.spec, given.status, given.iteration)
    panel = panel_policies(given.spec, given.status, given.iteration)
    params = JudgeParams(
        objective=given.objective,
        judging=given.spec.judging,
        judge=judge,
        policies=panel,
        max_tokens=given.spec.generation.max_tokens,
        rewards=given.spec.rewards,
        prompts_per_part=given.spec.generation.prompts_per_part,
    )
    return _StageParams(
        params,
        (judge, *panel.values()),
        given.made_before(Input.ROLLOUTS, Stage.GENERATE, given.iteration),
    )


def _train(given: _StageInputs) -> _StageParams:
    params = TrainParams(
        training=given.spec.training.with_defaults(),
        checkpoints=given.spec.training.checkpoints,
        policy=given.start,
        temperature=given.spec.generation.temperature,
        max_tokens=given.spec.generation.completion_tokens,
    )
    inputs: dict[str, ArtifactRef] = {
        Input.ROLLOUTS: _artifact(given.status, Step(Stage.GENERATE, given.iteration)),
        Input.JUDGEMENTS: _artifact(given.status, Step(Stage.JUDGE, given.iteration)),
    }
    return _StageParams(params, (given.start,), inputs)


def _evaluate(given: _StageInputs) -> _StageParams:
    trained = trained_policy(given.status, given.iteration)
    params = EvaluateParams(
        objective=given.objective,
        evaluation=given.spec.evaluation,
        judging=given.spec.judging,
        policy=trained,
        previous=given.start,
        max_tokens=given.spec.generation.max_tokens,
        thinking_tokens=given.spec.generation.thinking_tokens,
        rewards=given.spec.rewards,
        max_length=given.spec.engine.max_length,
    )
    inputs = {
        Input.HELD_OUT: _prompts_of(given.status, 0),
        **_latest_evaluation(given),
        **_base_capability(given),
        **_earlier_evaluations(given),
    }
    return _StageParams(params, (trained, given.start), inputs)


def _latest_evaluation(given: _StageInputs) -> dict[str, ArtifactRef]:
    """The latest evaluation before this one, if any, for the answers of the base model and of the policy before."""
    earlier = [entry.evaluation for entry in given.status.iterations if entry.index < given.iteration]
    found = [evaluation for evaluation in earlier if evaluation is not None]
    return {Input.ANSWERS: found[-1]} if found else {}


def _earlier_evaluations(given: _StageInputs) -> dict[str, ArtifactRef]:
    """Every evaluation before this one, for the ratings."""
    if given.spec.evaluation.ratings is Ratings.NONE:
        return {}
    return {
        EVALUATIONS.of(entry.index): entry.evaluation
        for entry in given.status.iterations
        if entry.index < given.iteration and entry.evaluation is not None
    }


def _base_capability(given: _StageInputs) -> dict[str, ArtifactRef]:
    """The latest evaluation before this one that examined the base model, as an input of its own, if any."""
    if not given.spec.evaluation.capability.tasks:
        return {}
    earlier = [entry for entry in given.status.iterations if entry.index < given.iteration]
    found = [entry.evaluation for entry in earlier if entry.evaluation is not None and entry.capability is not None]
    return {Input.CAPABILITY: found[-1]} if found else {}


def _export(given: _StageInputs) -> _StageParams:
    exported = exported_policy(given.spec, given.status)
    summaries = tuple(
        IterationSummary(
            index=entry.index,
            reward=entry.reward,
            win_rate=entry.win_rate,
            capability=entry.capability,
            capability_delta=entry.capability_delta,
        )
        for entry in given.status.iterations
        if entry.policy is not None  # a rollout may have ended before its iteration has trained
    )
    params = ExportParams(
        policy=exported,
        model_uri=given.spec.model.uri,
        objective=given.objective,
        iterations=summaries,
        training=given.status.training,
        publish=given.spec.export.publish,
    )
    return _StageParams(params, (exported,))


_BUILDERS: Final[Mapping[Stage, Callable[[_StageInputs], _StageParams]]] = {
    Stage.FETCH: _fetch,
    Stage.PROMPTS: _prompts,
    Stage.GENERATE: _generate,
    Stage.JUDGE: _judge,
    Stage.TRAIN: _train,
    Stage.EVALUATE: _evaluate,
    Stage.EXPORT: _export,
}


_MADE_BY: Final[Mapping[Stage, Mapping[Input, Stage]]] = {
    Stage.GENERATE: {Input.PROMPTS: Stage.PROMPTS},
    Stage.JUDGE: {Input.ROLLOUTS: Stage.GENERATE},
}
"""Stage -> its inputs that an earlier stage of the same iteration makes, and which one."""


def _prompts_of(status: AlignmentRunStatus, iteration: int) -> ArtifactRef:
    found = iteration_status(status, iteration).prompts
    if found is None:
        raise MissingArtifactError(f"status.iterations[{iteration}].prompts")
    return found


def _artifact(status: AlignmentRunStatus, step: Step) -> ArtifactRef:
    found = stage_status(status, step).artifact
    if found is None:
        raise MissingArtifactError(f"the status of stage {step}")
    return found
