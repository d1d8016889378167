"""evaluate: does the policy answer held-out prompts better than the base model, and better than before?"""

import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.estimate import Estimate
from dynalign_contract.inputs import Input
from dynalign_contract.layout import ANSWERS_FILE, COMPARISONS_FILE, HELD_OUT_FILE
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import COMPARISON, AnswerRow, PromptRow, write_rows
from dynalign_contract.settings import EvaluationJudge
from dynalign_trainer.endpoints.journal import JOURNAL_FILE
from dynalign_trainer.evaluate import statistics
from dynalign_trainer.evaluate.answers import answer_metrics, keep_or_sample, read_held_out, sample_answers
from dynalign_trainer.evaluate.bootstrap import estimate
from dynalign_trainer.evaluate.capability import CapabilityEvaluation, CapabilityResult
from dynalign_trainer.evaluate.comparing import Pair, PairJudge
from dynalign_trainer.evaluate.comparison_sets import BASE, PREVIOUS, ComparisonSet, build_comparisons
from dynalign_trainer.evaluate.earlier_answers import find_earlier_answers, read_earlier_answers, sampling_digest
from dynalign_trainer.evaluate.fixed_judges import open_fixed_judges
from dynalign_trainer.evaluate.held_out import HeldOut
from dynalign_trainer.evaluate.held_out_reward import held_out_metrics
from dynalign_trainer.evaluate.judges import build_judges, measure_spending, open_judge_endpoint
from dynalign_trainer.evaluate.policy_ratings import rate_policies
from dynalign_trainer.evaluate.progress import Progress
from dynalign_trainer.evaluate.statistics import Comparison
from dynalign_trainer.evaluate.verified import verifier_metrics, with_values
from dynalign_trainer.models.engine import Engine, start_engine
from dynalign_trainer.models.thoughts import Lengths
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.verifiers.opening import open_verifiers, surroundings_of
from dynalign_trainer.verifiers.verifier import Verifier, explain_failures


def run(context: StageContext[EvaluateParams]) -> StageOutput[EvaluateParams]:
    """Write answers, comparisons and scores of tasks; report win rates and capability.

    A regression is reported, what follows is the planner's choice. Raises BadInputError when there are no held-out
    prompts, one does not fit into the context window, or a task cannot be loaded; BadConfigError or EndpointError when
    the endpoint of a judge cannot be used.
    """
    params = context.params
    prompts = read_held_out(context.input(Input.HELD_OUT) / HELD_OUT_FILE)
    policies = (Policy(), params.previous, params.policy)
    opponents = {BASE: Policy()} | ({PREVIOUS: params.previous} if params.previous.version != BASE else {})
    endpoint = open_judge_endpoint(context, os.environ)
    opened = open_verifiers(params.rewards, surroundings_of(context, os.environ))
    engine = start_engine(context, [policy for policy in policies if policy.adapter is not None])
    examination = CapabilityEvaluation(context)
    versions = len({policy.version for policy in policies})
    held_out = HeldOut(context, open_fixed_judges(context, engine, os.environ), read_earlier_answers(context))
    judging = len(params.evaluation.win_rate.judges) * len(opponents)
    units = len(prompts) * (versions + judging) + held_out.units(prompts) + examination.units
    progress = Progress(context, units)
    answers = _answer(held_out, engine, prompts, policies, verifiers=opened.verifiers, progress=progress)
    answers = held_out.reward(answers, progress)
    judges = build_judges(context, engine, endpoint, held_out.known_rewards(answers))
    comparison_sets = [
        _compare(params.policy, opponent, judge, answers, progress)
        for judge in judges.items()
        for opponent in opponents.items()
    ]
    rows = build_comparisons(comparison_sets, prompts, policy=params.policy, method=params.evaluation.win_rate.method)
    write_rows(context.folder / COMPARISONS_FILE, rows, COMPARISON)
    ratings = rate_policies(context, rows)
    capability = examination.run(engine, progress)
    (context.folder / JOURNAL_FILE).unlink(missing_ok=True)
    opened.close()
    if reasons := explain_failures(opened.verifiers):
        context.warn(reasons)
    return StageOutput(
        files={
            ANSWERS_FILE: len(prompts) * versions,
            COMPARISONS_FILE: len(rows),
            **ratings.files,
            **capability.files,
        },
        metrics={
            **_measure(context, comparison_sets, answers, capability),
            **ratings.metrics,
            **measure_spending([*([endpoint.usage] if endpoint else []), *held_out.judges.usage]),
        },
        producers=opened.producers,
    )


def _answer(
    held_out: HeldOut,
    engine: Engine,
    prompts: Sequence[PromptRow],
    policies: Sequence[Policy],
    *,
    verifiers: Sequence[Verifier],
    progress: Progress,
) -> dict[str, list[AnswerRow]]:
    """Greedy answers by policy version, kept from an earlier attempt or evaluation where it wrote them."""
    context, params = held_out.context, held_out.context.params
    lengths = Lengths(params.evaluation.win_rate.max_tokens or params.max_tokens, params.thinking_tokens)

    def sample(policy: Policy) -> list[AnswerRow]:
        digest, watch = sampling_digest(context, policy, lengths), progress.begin(len(prompts))
        rows = find_earlier_answers(held_out.earlier, prompts, policy, digest)
        if rows is None:
            sampled = sample_answers(engine, prompts, policy, lengths=lengths, watch=watch)
            rows = [{**row, "sampled_with": digest} for row in sampled]
        return with_values(verifiers, prompts, rows)

    return keep_or_sample(context.folder / ANSWERS_FILE, prompts, policies, sample)


def _compare(
    policy: Policy,
    opponent: tuple[str, Policy],
    judge: tuple[EvaluationJudge, PairJudge],
    answers: Mapping[str, Sequence[AnswerRow]],
    progress: Progress,
) -> ComparisonSet:
    pairs = [Pair(*pair) for pair in zip(answers[policy.version], answers[opponent[1].version], strict=True)]
    return ComparisonSet(*opponent, judge[0], judge[1].version, judge[1].compare(pairs, progress.begin(len(pairs))))


class _Options(TypedDict):
    """Arguments of every bootstrap over the held-out prompts."""

    confidence: float
    resamples: int
    seed: int


def _measure(
    context: StageContext[EvaluateParams],
    comparison_sets: Sequence[ComparisonSet],
    answers: Mapping[str, Sequence[AnswerRow]],
    capability: CapabilityResult,
) -> MetricValues[EvaluateParams]:
    """The stage's metrics, the most important first; win rates are against base unless the name says otherwise."""
    params = context.params
    settings = params.evaluation.win_rate
    found = {
        (comparison_set.opponent, comparison_set.judge): comparison_set.comparisons
        for comparison_set in comparison_sets
    }
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
