"""From spec and status to the StageConfig of a step: parameters, weights, and input artifacts with their digests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    StageConfig,
    TrainParams,
)
from dynalign_contract.inputs import EVALUATIONS, HISTORY, Input
from dynalign_contract.objective import Objective
from dynalign_contract.preflight import Preflight
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import Ratings, Refresh
from dynalign_contract.stages import SHARDED_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec
from dynalign_operator.planning.errors import MissingArtifactError
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.policies import BASE, exported_policy, judge_policy, start_policy, trained_policy
from dynalign_operator.planning.stage_status import iteration_status, stage_status


@dataclass(frozen=True)
class _Place:
    """What a stage's parameters are made from."""

    spec: AlignmentRunSpec
    status: AlignmentRunStatus
    objective: Objective
    iteration: int

    @property
    def start(self) -> Policy:
        return start_policy(self.spec, self.status, self.iteration)


@dataclass(frozen=True)
class _Parts:
    """A stage's parameters, the weights that play a part in it, and its inputs beside these and the model."""

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
    parts = _BUILDERS[step.stage](_Place(spec, status, objective, step.iteration or 0))
    model: dict[str, ArtifactRef] = (
        {} if step.stage is Stage.FETCH else {Input.MODEL: _artifact(status, Step(Stage.FETCH))}
    )
    adapters = {policy.version: policy.adapter for policy in parts.policies if policy.adapter is not None}
    return StageConfig(
        run=run.metadata.name,
        iteration=step.iteration,
        attempt=attempt,
        shards=spec.generation.shards if step.stage in SHARDED_STAGES else 1,
        seed=spec.seed,
        engine=spec.engine,
        inputs={str(name): artifact for name, artifact in {**model, **parts.inputs, **adapters}.items()},
        params=parts.params,
    )


def _fetch(place: _Place) -> _Parts:
    spec = place.spec
    preflight = Preflight(prompts=spec.prompts, training=spec.training, max_tokens=spec.generation.max_tokens)
    tasks = spec.evaluation.capability.foreign_tasks
    return _Parts(FetchParams(uri=spec.model.uri, tasks=tasks, preflight=preflight))


def _prompts(place: _Place) -> _Parts:
    prompts = place.spec.prompts
    policy = place.start if AgentModel.POLICY in prompts.agents.models else BASE
    params = PromptsParams(
        objective=place.objective,
        prompts=prompts,
        policy=policy,
        reserve_tokens=place.spec.generation.max_tokens,
    )
    history = {
        HISTORY.of(entry.index): entry.prompts
        for entry in place.status.iterations
        if entry.index < place.iteration and entry.prompts is not None
    }
    held_out: dict[str, ArtifactRef] = {Input.HELD_OUT: _prompts_of(place.status, 0)} if place.iteration else {}
    return _Parts(params, (policy,), {**held_out, **history})


def _generate(place: _Place) -> _Parts:
    source = 0 if place.spec.prompts.refresh is Refresh.ONCE else place.iteration
    return _Parts(
        GenerateParams(generation=place.spec.generation, policy=place.start),
        (place.start,),
        {Input.PROMPTS: _prompts_of(place.status, source)},
    )


def _judge(place: _Place) -> _Parts:
    judge = judge_policy(place.spec, place.status, place.iteration)
    params = JudgeParams(
        objective=place.objective,
        judging=place.spec.judging,
        judge=judge,
        max_tokens=place.spec.generation.max_tokens,
        prompts_per_part=place.spec.generation.prompts_per_part,
    )
    return _Parts(params, (judge,), {Input.ROLLOUTS: _artifact(place.status, Step(Stage.GENERATE, place.iteration))})


def _train(place: _Place) -> _Parts:
    params = TrainParams(
        training=place.spec.training,
        policy=place.start,
        temperature=place.spec.generation.temperature,
        max_tokens=place.spec.generation.max_tokens,
    )
    inputs: dict[str, ArtifactRef] = {
        Input.ROLLOUTS: _artifact(place.status, Step(Stage.GENERATE, place.iteration)),
        Input.JUDGEMENTS: _artifact(place.status, Step(Stage.JUDGE, place.iteration)),
    }
    return _Parts(params, (place.start,), inputs)


def _evaluate(place: _Place) -> _Parts:
    trained = trained_policy(place.status, place.iteration)
    params = EvaluateParams(
        objective=place.objective,
        evaluation=place.spec.evaluation,
        judging=place.spec.judging,
        policy=trained,
        previous=place.start,
        max_tokens=place.spec.generation.max_tokens,
        max_length=place.spec.engine.max_length,
    )
    inputs = {Input.HELD_OUT: _prompts_of(place.status, 0), **_examined(place), **_compared(place)}
    return _Parts(params, (trained, place.start), inputs)


def _compared(place: _Place) -> dict[str, ArtifactRef]:
    """Every evaluation before this one, for the ratings."""
    if place.spec.evaluation.ratings is Ratings.NONE:
        return {}
    return {
        EVALUATIONS.of(entry.index): entry.evaluation
        for entry in place.status.iterations
        if entry.index < place.iteration and entry.evaluation is not None
    }


def _examined(place: _Place) -> dict[str, ArtifactRef]:
    """The latest evaluation before this one that examined the base model, as an input of its own, if any."""
    if not place.spec.evaluation.capability.tasks:
        return {}
    earlier = [entry for entry in place.status.iterations if entry.index < place.iteration]
    found = [entry.evaluation for entry in earlier if entry.evaluation is not None and entry.capability is not None]
    return {Input.CAPABILITY: found[-1]} if found else {}


def _export(place: _Place) -> _Parts:
    exported = exported_policy(place.spec, place.status)
    summaries = tuple(
        IterationSummary(
            index=entry.index,
            reward=entry.reward,
            win_rate=entry.win_rate,
            capability=entry.capability,
            capability_delta=entry.capability_delta,
        )
        for entry in place.status.iterations
    )
    params = ExportParams(
        policy=exported, model_uri=place.spec.model.uri, objective=place.objective, iterations=summaries
    )
    return _Parts(params, (exported,))


_BUILDERS: Final[Mapping[Stage, Callable[[_Place], _Parts]]] = {
    Stage.FETCH: _fetch,
    Stage.PROMPTS: _prompts,
    Stage.GENERATE: _generate,
    Stage.JUDGE: _judge,
    Stage.TRAIN: _train,
    Stage.EVALUATE: _evaluate,
    Stage.EXPORT: _export,
}


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
