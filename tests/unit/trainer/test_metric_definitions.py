"""Stages and their readers speak of the same numbers: the functions that measure are called, and their names compared."""

import ast
import inspect
import math
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dynalign_contract.config import Policy
from dynalign_contract.metrics import STAGE_METRICS, MetricDef, MetricValues, find_definition
from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_contract.settings import CapabilitySettings, Combine, EvaluationSettings
from dynalign_contract.stages import Stage
from dynalign_operator.metrics.exports import gauge_of
from dynalign_operator.metrics.runs import RUN_METRICS
from dynalign_trainer.evaluate import capability, judges, policy_ratings
from dynalign_trainer.evaluate import stage as evaluate
from dynalign_trainer.evaluate.comparison_sets import BASE
from dynalign_trainer.evaluate.statistics import Comparison
from dynalign_trainer.export import stage as export
from dynalign_trainer.fetch import stage as fetch
from dynalign_trainer.generate import stage as generate
from dynalign_trainer.judge import stage as judge
from dynalign_trainer.judge.groups import RolloutGroup
from dynalign_trainer.judge.panel.figures import Figures, Rewards
from dynalign_trainer.judge.panel.metrics import panel_metrics
from dynalign_trainer.judge.panel.opinions import Opinions
from dynalign_trainer.judge.panel.questions import Questions
from dynalign_trainer.judge.panel.verdict import Verdict
from dynalign_trainer.judge.shard import JudgedShard
from dynalign_trainer.prompts import measuring
from dynalign_trainer.prompts import stage as prompts
from dynalign_trainer.prompts.drafts import Tally
from dynalign_trainer.report import stage as report
from dynalign_trainer.runtime.parts import Part
from dynalign_trainer.scoring.combining import CombinationRule
from dynalign_trainer.train import stage as train
from dynalign_trainer.train import summary
from dynalign_trainer.train.batch import Batch
from dynalign_trainer.train.job import StepReport, WorkerOutcome, WorkerResult

OBJECTIVE = builtin_objective(BUILTIN[0])


def every_metric() -> list[MetricDef[Any]]:
    return [
        metric
        for metrics in STAGE_METRICS.values()
        for metric in (*metrics.singles().values(), *(family.each for family in metrics.families().values()))
    ]


def said_in_place(stage: ModuleType) -> set[str]:
    """Names that the stage's own module adds to what its functions have measured: keys in `StageOutput(...)`'s metrics."""
    names = set()
    for call in ast.walk(ast.parse(inspect.getsource(stage))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "StageOutput":
            for keyword in call.keywords:
                if keyword.arg == "metrics":
                    keys = (key for node in ast.walk(keyword.value) if isinstance(node, ast.Dict) for key in node.keys)
                    names |= {key.attr for key in keys if isinstance(key, ast.Attribute)}
    return names


def named(values: MetricValues[Any]) -> set[str]:
    return {metric.name for metric in values}


def of_judge() -> MetricValues[Any]:
    params: Any = SimpleNamespace(objective=OBJECTIVE, judge=Policy())
    model: Any = None
    verified: Any = {
        "prompt_id": "p",
        "raw_reward": 0.5,
        "reward": 0.5,
        "retries": 0,
        "scores": [{"score": 4.5, "mass": 1.0}] * len(OBJECTIVE.aspects),
        "verifiers": {"short": 1.0},
    }
    rollout: Any = {"completion_ids": [1]}
    part = Part(0, (RolloutGroup("p", [], [rollout]),))
    judged = JudgedShard(model, {0: [verified]}, [], None, None, 0, [])
    return judge._measure(params, [part], judge.JudgingOutcome(judged, None, fell_back=False, unfit=False))


def of_panel() -> MetricValues[Any]:
    """What several judges add."""
    params: Any = SimpleNamespace(objective=OBJECTIVE)
    opinion: Any = {"reward": 0.5, "truncated": False, "spread": math.nan}
    usage = SimpleNamespace(requests=1, tokens=2, cached=0)
    outside: Any = SimpleNamespace(is_outside=True, model=SimpleNamespace(usage=usage))
    rollout: Any = {"prompt_id": "p", "candidate": 0, "completion_ids": [1]}
    found = Opinions(outside, {("p", 0): opinion}, {("p", 0): 0.5}, [])
    group = RolloutGroup("p", [], [rollout])
    questions = Questions([Part(0, (group,))], [], [], [], [], decides=True)
    figures = Figures(0.0, None, None, None, None)
    rule = CombinationRule(Combine.MEAN, {"a": 1.0, "b": 1.0}, 2)
    opinions = {"a": found, "b": found}
    verdict = Verdict(dict.fromkeys(opinions, figures), {}, frozenset(), rule, Rewards({}, []), figures, None)
    row: Any = {"prompt_id": "p", "raw_reward": 0.5, "reward": 0.5, "retries": 0, "scores": []}
    row["scores"] = [{"score": 4.5, "mass": 1.0}] * len(OBJECTIVE.aspects)
    return panel_metrics(params, questions, opinions, verdict, [row])


def of_evaluate() -> MetricValues[Any]:
    comparisons = [Comparison(0.9, 0.8, 1.0, 3, both_orders=True), Comparison(0.1, 0.2, 0.0, -3, both_orders=True)]
    settings = EvaluationSettings()
    found = {(BASE, which): comparisons for which in settings.win_rate.judges}
    context: Any = SimpleNamespace(params=SimpleNamespace(evaluation=settings, policy=Policy()), seed=lambda _: 0)
    answers: Any = {Policy().version: [{"completion_ids": [1, 2], "verifiers": {"short": 1.0}, "reward": 0.5}]}
    measured = evaluate._measure(context, found, answers, capability.CapabilityResult())
    endpoint: Any = SimpleNamespace(usage=SimpleNamespace(requests=1, tokens=2))
    own: Any = SimpleNamespace(points=1.0, interval=SimpleNamespace(low=0.0, high=2.0))
    exam = capability.summarise(exam_scores(), CapabilitySettings(), seed=0)
    return {**measured, **judges.measure_spending([endpoint.usage]), **policy_ratings.rating_metrics(own), **exam}


def exam_scores() -> list[Any]:
    import numpy as np

    from dynalign_trainer.evaluate.paired import TaskScores

    return [TaskScores("ifeval", np.array([0.5, 1.0]), np.array([0.5, 0.0]))]


def of_train() -> MetricValues[Any]:
    batch = Batch(rows=(), group_size=2, groups=1, dropped_groups=1, noisy_groups=None)
    return summary.summarise(batch, WorkerResult(outcome=WorkerOutcome.TRAINED), [])


MEASURED = {
    Stage.FETCH: lambda: said_in_place(fetch),
    Stage.ROLLOUT: set,  # only the times that every stage has
    Stage.PROMPTS: lambda: named(measuring.measure([], Tally(), facets={}, wanted=4)) | said_in_place(prompts),
    Stage.GENERATE: lambda: named(generate.rollout_metrics([])) | said_in_place(generate),
    Stage.JUDGE: lambda: named(of_judge()) | named(of_panel()) | said_in_place(judge),
    Stage.TRAIN: lambda: named(of_train()) | said_in_place(train),
    Stage.EVALUATE: lambda: named(of_evaluate()) | said_in_place(evaluate),
    Stage.EXPORT: lambda: said_in_place(export),
    Stage.REPORT: lambda: said_in_place(report),
}


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_measures_what_is_defined_for_it_and_nothing_else(stage: Stage) -> None:
    names = MEASURED[stage]()
    assert [name for name in names if find_definition(stage, name) is None] == []
    metrics = STAGE_METRICS[stage]
    families = [name for name in metrics.families() if not any(found.startswith(f"{name}/") for found in names)]
    of_every_stage = {one.name for one in (metrics.start_seconds, metrics.useful_seconds, metrics.preserved_seconds)}
    assert [*metrics.singles().keys() - names - of_every_stage, *families] == []


def test_what_a_running_stage_says_is_defined_too() -> None:
    said: MetricValues[Any] = {}
    telemetry: Any = SimpleNamespace(progress=lambda *_: None, rate=lambda _: None, metric=said.__setitem__)
    step = StepReport(
        step=1,
        steps=2,
        loss=0.1,
        kl=0.2,
        entropy=1.0,
        ratio_mean=1.0,
        ratio_max=1.0,
        clip_share=0.0,
        grad_norm=1.0,
        tokens=1,
        seconds=1.0,
    )
    summary.publish_report(telemetry, step)
    assert said
    assert {metric.stage for metric in said} == {Stage.TRAIN}


def test_every_aspect_and_task_has_its_own_number() -> None:
    assert {f"aspect_reward/{aspect.id}" for aspect in OBJECTIVE.aspects} <= named(of_judge())
    assert {"task/ifeval", "task_delta/ifeval"} <= named(of_evaluate())


def test_members_of_a_family_share_its_gauge() -> None:
    families = [family for metrics in STAGE_METRICS.values() for family in metrics.families().values()]
    assert [family.name for family in families if gauge_of(family.of("anything")) != gauge_of(family.each)] == []


def test_what_is_exported_has_one_name_for_one_number() -> None:
    names = [metric.name for metric in RUN_METRICS]
    assert len(set(names)) == len(names)
    exported = [metric for metric in every_metric() if metric.export is not None]
    gauges = [gauge_of(metric) for metric in exported if metric.export and not metric.export.by_stage]
    assert len({gauge.name for gauge in gauges if gauge}) == len(gauges), "two metrics share a gauge"
    assert {gauge.name for gauge in map(gauge_of, exported) if gauge} <= set(names)


def test_a_user_s_word_never_meets_a_name_of_ours() -> None:
    """Aspects and tasks have names that users choose: no choice of them is another metric's name."""
    for stage, metrics in STAGE_METRICS.items():
        assert all("/" not in name for name in (*metrics.singles(), *metrics.families()))
        for family in metrics.families().values():
            for other in metrics.singles():
                found = find_definition(stage, family.of(other).name)
                assert found == family.of(other)
                assert family.members({family.of(other): 1.0}) == {other: 1.0}
