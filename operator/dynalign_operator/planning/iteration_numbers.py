"""Numbers of a stage's result that an iteration keeps when its stages are dropped from the status."""

from typing import Any

from dynalign_contract.metrics import EvaluateMetrics, JudgeMetrics, MetricDef, read_metrics
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import IterationStatus, StageStatus


def keep_numbers(iteration: IterationStatus, stage: StageStatus) -> IterationStatus:
    """The iteration with the artifact and the numbers of a stage that has succeeded."""
    values = read_metrics(stage.stage, stage.metrics)
    match stage.stage:
        case Stage.PROMPTS:
            return iteration.evolve(prompts=stage.artifact)
        case Stage.JUDGE:
            return iteration.evolve(reward=values.get(JudgeMetrics.reward))
        case Stage.TRAIN:
            return iteration.evolve(policy=stage.artifact)
        case Stage.EVALUATE:
            return iteration.evolve(
                win_rate=EvaluateMetrics.win_rate.join(values),
                preference=values.get(EvaluateMetrics.preference),
                capability=EvaluateMetrics.capability.join(values),
                capability_delta=EvaluateMetrics.capability_delta.join(values),
                regressed=values.get(EvaluateMetrics.regressed) == 1,
                evaluation=stage.artifact,
            )
        case _:
            return iteration


def numbers_of(iteration: IterationStatus) -> dict[MetricDef[Any], float]:
    """Every number that is known of an iteration: those of its stages and those that it keeps."""
    found = {
        definition: value
        for stage in iteration.stages
        for definition, value in read_metrics(stage.stage, stage.metrics).items()
    }
    kept: dict[MetricDef[Any], float | None] = {
        JudgeMetrics.reward: iteration.reward,
        **EvaluateMetrics.win_rate.split(iteration.win_rate),
        EvaluateMetrics.preference: iteration.preference,
        **EvaluateMetrics.capability.split(iteration.capability),
        **EvaluateMetrics.capability_delta.split(iteration.capability_delta),
    }
    return found | {definition: value for definition, value in kept.items() if value is not None}
