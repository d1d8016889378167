"""The part of an evaluation that asks models: answers, their rewards, comparisons, and scores of tasks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.layout import ANSWERS_FILE, COMPARISONS_FILE
from dynalign_contract.metrics import MetricValues
from dynalign_contract.records import ANSWER, COMPARISON, AnswerRow, PromptRow, write_rows
from dynalign_contract.settings import EvaluationJudge
from dynalign_trainer.endpoints.journal import JOURNAL_FILE
from dynalign_trainer.evaluate.answers import keep_or_sample, sample_answers
from dynalign_trainer.evaluate.capability import CapabilityEvaluation
from dynalign_trainer.evaluate.comparing import Pair, PairJudge
from dynalign_trainer.evaluate.comparison_sets import ComparisonSet, build_comparisons
from dynalign_trainer.evaluate.earlier_answers import find_earlier_answers, read_earlier_answers, sampling_digest
from dynalign_trainer.evaluate.findings import contests, policies_of
from dynalign_trainer.evaluate.fixed_judges import open_fixed_judges
from dynalign_trainer.evaluate.held_out import HeldOut
from dynalign_trainer.evaluate.judges import build_judges, measure_spending, open_judge_endpoint
from dynalign_trainer.evaluate.progress import Progress
from dynalign_trainer.evaluate.verified import with_values
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.thoughts import Lengths
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.verifiers.opening import open_verifiers, surroundings_of
from dynalign_trainer.verifiers.verifier import Verifier, explain_failures


@dataclass(frozen=True)
class Collected:
    """What was written into the stage's folder, and what it took."""

    files: Mapping[str, int]
    """File -> rows."""
    metrics: MetricValues[EvaluateParams] = field(default_factory=dict)
    """What endpoints were asked for; none without an endpoint."""
    producers: Mapping[str, str] = field(default_factory=dict)


def collect(context: StageContext[EvaluateParams], prompts: Sequence[PromptRow]) -> Collected:
    """Write answers to these prompts, their comparisons, and scores of the items of tasks that this shard has.

    Raises BadInputError when a prompt does not fit into the context window, or a task cannot be loaded; BadConfigError
    or EndpointError when the endpoint of a judge cannot be used.
    """
    params = context.params
    endpoint = open_judge_endpoint(context, os.environ)
    examination = CapabilityEvaluation(context)
    if not prompts and not examination.units:
        return _collect_nothing(context)
    policies = policies_of(params)
    opened = open_verifiers(params.rewards, surroundings_of(context, os.environ))
    engine = start_engine(context, [policy for policy in policies.values() if policy.adapter is not None])
    held_out = HeldOut(context, open_fixed_judges(context, engine, os.environ), read_earlier_answers(context))
    sets = list(contests(params))
    units = len(prompts) * (len(policies) + len(sets)) + held_out.units(prompts) + examination.units
    progress = Progress(context, units)
    answers = _answer(held_out, engine, prompts, policies, verifiers=opened.verifiers, progress=progress)
    answers = held_out.reward(answers, progress)
    judges = build_judges(context, engine, endpoint, held_out.known_rewards(answers))
    found = [_compare(params.policy, opponent, (judge, judges[judge]), answers, progress) for judge, opponent in sets]
    rows = build_comparisons(found, prompts, policy=params.policy, method=params.evaluation.win_rate.method)
    write_rows(context.folder / COMPARISONS_FILE, rows, COMPARISON)
    items = examination.run(engine, progress)
    (context.folder / JOURNAL_FILE).unlink(missing_ok=True)
    opened.close()
    if reasons := explain_failures(opened.verifiers):
        context.warn(reasons)
    return Collected(
        files={ANSWERS_FILE: len(prompts) * len(policies), COMPARISONS_FILE: len(rows), **items},
        metrics=measure_spending([*([endpoint.usage] if endpoint else []), *held_out.judges.usage]),
        producers=opened.producers,
    )


def _collect_nothing(context: StageContext[EvaluateParams]) -> Collected:
    """What a shard leaves that has neither a prompt nor an item, for there are more shards than these."""
    context.telemetry.progress(1, 1)
    write_rows(context.folder / ANSWERS_FILE, [], ANSWER)
    write_rows(context.folder / COMPARISONS_FILE, [], COMPARISON)
    return Collected(files={ANSWERS_FILE: 0, COMPARISONS_FILE: 0})


def _answer(
    held_out: HeldOut,
    engine: Engine,
    prompts: Sequence[PromptRow],
    policies: Mapping[str, Policy],
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

    return keep_or_sample(context.folder / ANSWERS_FILE, prompts, list(policies.values()), sample)


def _compare(
    policy: Policy,
    opponent: tuple[str, Policy],
    judge: tuple[EvaluationJudge, PairJudge],
    answers: Mapping[str, Sequence[AnswerRow]],
    progress: Progress,
) -> ComparisonSet:
    pairs = [Pair(*pair) for pair in zip(answers[policy.version], answers[opponent[1].version], strict=True)]
    found = judge[1].compare(pairs, progress.begin(len(pairs))) if pairs else []
    return ComparisonSet(*opponent, judge[0], judge[1].version, found)
