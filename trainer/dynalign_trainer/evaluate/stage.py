"""evaluate: does the policy answer held-out prompts better than the base model, and better than before?"""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.estimate import Estimate
from dynalign_contract.inputs import Input
from dynalign_contract.layout import HELD_OUT_FILE
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import AnswerRow, PromptRow
from dynalign_contract.settings import EvaluationJudge
from dynalign_trainer.evaluate import statistics
from dynalign_trainer.evaluate.answers import answer_metrics, read_held_out
from dynalign_trainer.evaluate.bootstrap import estimate
from dynalign_trainer.evaluate.capability import CapabilityResult, measure_capability
from dynalign_trainer.evaluate.collecting import Collected, collect
from dynalign_trainer.evaluate.comparison_sets import BASE, PREVIOUS
from dynalign_trainer.evaluate.findings import Findings, read_findings
from dynalign_trainer.evaluate.held_out_reward import held_out_metrics
from dynalign_trainer.evaluate.judges import refuse_few
from dynalign_trainer.evaluate.policy_ratings import rate_policies
from dynalign_trainer.evaluate.splitting import Part
from dynalign_trainer.evaluate.statistics import Comparison
from dynalign_trainer.evaluate.verified import verifier_metrics
from dynalign_trainer.runtime.context import StageContext, StageOutput

_NOTHING: Final = Collected(files={})


def run(context: StageContext[EvaluateParams]) -> StageOutput[EvaluateParams]:
    """Write answers, comparisons and scores of tasks; report win rates and capability.

    A shard writes its share of the rows, and nothing is computed before all shares are joined: that needs no model.
    A regression is reported, what follows is the planner's choice. Raises BadInputError when there are no held-out
    prompts, one does not fit into the context window, or a task cannot be loaded; BadConfigError or EndpointError when
    the endpoint of a judge cannot be used.
    """
    prompts = read_held_out(context.input(Input.HELD_OUT) / HELD_OUT_FILE)
    if context.shares:
        return _join(context, prompts)
    collected = collect(context, Part(context.shard, context.config.shards).of(prompts))
    if context.config.is_joined:
        return StageOutput(files=collected.files, metrics=collected.metrics, producers=collected.producers)
    return _conclude(context, read_findings(context.params, [context.folder], prompts), collected)


def _join(context: StageContext[EvaluateParams], prompts: Sequence[PromptRow]) -> StageOutput[EvaluateParams]:
    context.telemetry.progress(1, 1)
    findings = read_findings(context.params, context.shares, prompts)
    for (_, judge), comparisons in findings.comparisons_of(context.params).items():
        if judge is EvaluationJudge.ENDPOINT:
            refuse_few("the judge's endpoint", comparisons, "the logs of the shards say why")
    findings.write(context.folder)
    return _conclude(context, findings, _NOTHING)


def _conclude(
    context: StageContext[EvaluateParams], findings: Findings, collected: Collected
) -> StageOutput[EvaluateParams]:
    """The stage's output, from the rows that are in its folder."""
    params = context.params
    ratings = rate_policies(context, findings.comparisons)
    capability = measure_capability(findings.capability, params, seed=context.seed("capability"))
    measured = _measure(context, findings.comparisons_of(params), findings.answers, capability)
    return StageOutput(
        files={**findings.files, **ratings.files},
        metrics={**measured, **ratings.metrics, **collected.metrics},
        producers=collected.producers,
    )


class _Options(TypedDict):
    """Arguments of every bootstrap over the held-out prompts."""

    confidence: float
    resamples: int
    seed: int


def _measure(
    context: StageContext[EvaluateParams],
    found: Mapping[tuple[str, EvaluationJudge], Sequence[Comparison]],
    answers: Mapping[str, Sequence[AnswerRow]],
    capability: CapabilityResult,
) -> MetricValues[EvaluateParams]:
    """The stage's metrics, the most important first; win rates are against base unless the name says otherwise.

    `found`: opponent and judge -> comparisons; `answers`: policy version -> ANSWER rows.
    """
    params = context.params
    settings = params.evaluation.win_rate
    headline = settings.judges[0]
    comparisons = found[BASE, headline]
    previous = found.get((PREVIOUS, headline), comparisons)

    def win_rate_of(judge: EvaluationJudge) -> float | None:
        return statistics.win_rate(found[BASE, judge]) if judge in settings.judges else None

    options: _Options = {
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "seed": context.seed("bootstrap"),
    }

    def rate_of(those: Sequence[Comparison]) -> Estimate | None:
        return estimate(statistics.win_rate(those), statistics.bootstrap_interval(those, **options))

    rate = rate_of(comparisons)
    return {
        **EvaluateMetrics.win_rate.split(rate),
        **EvaluateMetrics.win_rate_lc.split(
            estimate(
                statistics.length_controlled_win_rate(comparisons),
                statistics.length_controlled_interval(comparisons, **options),
            )
        ),
        **EvaluateMetrics.win_rate_consistent.split(rate_of(statistics.consistent(comparisons))),
        **EvaluateMetrics.win_rate_previous.split(rate_of(previous)),
        **held_out_metrics(answers[params.policy.version], answers[Policy().version], **options),
        EvaluateMetrics.preference: statistics.mean_preference(comparisons),
        EvaluateMetrics.win_rate_live: win_rate_of(EvaluationJudge.LIVE),
        EvaluateMetrics.win_rate_endpoint: win_rate_of(EvaluationJudge.ENDPOINT),
        EvaluateMetrics.ties: statistics.tie_share(comparisons),
        EvaluateMetrics.order_flips: statistics.order_flips(comparisons),
        EvaluateMetrics.first_position: statistics.first_position(comparisons),
        EvaluateMetrics.regressed: float((rate is not None and rate.is_below(0.5)) or capability.regressed),
        **answer_metrics(answers[params.policy.version], answers[Policy().version]),
        EvaluateMetrics.prompts: len(comparisons),
        **capability.metrics,
        **verifier_metrics(answers[params.policy.version], answers[Policy().version], **options),
    }
