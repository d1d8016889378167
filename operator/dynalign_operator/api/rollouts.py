"""Whether prompts, generate and judge of a run share a Job and its engine, and evaluate with them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from dynalign_contract.stages import PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.pods import StageOverrides
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec, Rollout


@dataclass(frozen=True)
class RolloutChoice:
    """What `rollout` comes to."""

    is_fused: bool
    reason: str
    """Why, for people: the rest of a sentence that begins with Fused or Separate."""
    has_evaluation: bool = False
    """Whether a fused rollout begins with the evaluation of the iteration before."""


def choose_rollout(spec: AlignmentRunSpec) -> RolloutChoice:
    """What `rollout` says, or for `Auto` what the run's other fields allow."""
    has_evaluation = spec.stages.evaluate in (StageOverrides(), spec.stages.rollout)
    if spec.rollout is not Rollout.AUTO:
        is_fused = spec.rollout is Rollout.FUSED
        return RolloutChoice(is_fused, "as rollout says", has_evaluation=is_fused and has_evaluation)
    obstacle = next(_obstacles(spec), None)
    if obstacle is not None:
        return RolloutChoice(is_fused=False, reason=obstacle)
    return RolloutChoice(
        is_fused=True,
        reason="prompts, generate and judge use the run's own engine, and their pods are alike",
        has_evaluation=has_evaluation,
    )


def pods_stage(spec: AlignmentRunSpec, stage: Stage) -> Stage:
    """The stage whose field of `spec.stages` describes the pods of a stage: `rollout` for those of a fused one.

    A stage of a fused rollout has a Job of its own where damage is repaired, and evaluate after the last iteration.
    """
    if stage not in PART_STAGES:
        return stage
    choice = choose_rollout(spec)
    is_part = choice.has_evaluation if stage is Stage.EVALUATE else choice.is_fused
    return Stage.ROLLOUT if is_part else stage


def run_overrides(spec: AlignmentRunSpec, stage: Stage) -> StageOverrides:
    """What the run says about the pods of a stage."""
    overrides: StageOverrides = getattr(spec.stages, pods_stage(spec, stage))
    return overrides


def without_fused_rollout(run: AlignmentRun) -> AlignmentRun:
    """The run with a Job for each stage, whose pods are those of its rollout; as it is where it has no fused one."""
    if not choose_rollout(run.spec).is_fused:
        return run
    own = run.spec.stages
    described = [stage for stage in PART_STAGES if pods_stage(run.spec, stage) is Stage.ROLLOUT]
    stages = own.model_copy(update=dict.fromkeys(map(str, described), own.rollout))
    spec = run.spec.model_copy(update={"rollout": Rollout.SEPARATE, "stages": stages})
    return run.model_copy(update={"spec": spec})


def _obstacles(spec: AlignmentRunSpec) -> Iterator[str]:
    if not spec.prompts.agents.need_engine:
        yield "no agent that writes prompts uses the run's own engine, which would wait for them"
    if not spec.judging.need_engine:
        yield "no judge uses the run's own engine, which would wait for them"
    for stage in ROLLOUT_STAGES:
        if getattr(spec.stages, stage) != StageOverrides():
            yield f"stages.{stage} says where a Job of its own runs; stages.rollout is for a fused one"
