"""judge: score every candidate of this shard, measure the judge, and refuse to go on with an unfit one."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dynalign_contract.config import BASE_POLICY, JudgeParams
from dynalign_contract.errors import BadConfigError, UnfitError
from dynalign_contract.layout import CANARIES_FILE
from dynalign_contract.metrics import JudgeMetrics, MetricDef, MetricValues
from dynalign_contract.records import CANARY, JUDGEMENT, JudgementRow, answer_length, write_rows
from dynalign_contract.settings import JudgingSettings, OnUnfitJudge
from dynalign_trainer.judge.groups import RolloutGroup, read_groups
from dynalign_trainer.judge.judges import Judges, is_base, open_judges
from dynalign_trainer.judge.metrics import judgement_metrics, undecided_shares, unscored_share
from dynalign_trainer.judge.panel.members import Panel
from dynalign_trainer.judge.panel.stage import clear_opinions, judge_by_panel
from dynalign_trainer.judge.shard import JudgedShard, PairedRewards, Shard
from dynalign_trainer.judge.trust import CanaryTrust, find_unfitness, kendall_tau, mean_offset
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.parts import Part, split_parts
from dynalign_trainer.runtime.shared_parts import SharedParts
from dynalign_trainer.scoring.scores import mean_of
from dynalign_trainer.verifiers.opening import open_verifiers, surroundings_of
from dynalign_trainer.verifiers.verifier import Verifier, explain_failures

log = logging.getLogger("dynalign.judge")

_CANARY: Final = (JudgeMetrics.canary_margin, JudgeMetrics.canary_auc, JudgeMetrics.canary_reward)
_INJECTION: Final = (JudgeMetrics.injection_margin, JudgeMetrics.injection_auc, JudgeMetrics.injection_reward)


def run(context: StageContext[JudgeParams]) -> StageOutput[JudgeParams]:
    """Write this shard's judgements, one Parquet part after the other, and in shard 0 the canaries.

    A shard that is done helps the others, unless the base model had to judge in the place of the configured judge.
    Raises BadInputError when there is nothing to judge or a prompt leaves no room for an answer, UnfitError when a gate
    refuses the judge and there is no other judge to fall back on, or when verifiers leave too many answers undecided.
    """
    params = context.params
    check_gates(params.judging)
    opened = open_verifiers(params.rewards, surroundings_of(context, os.environ))
    groups = read_groups(context)
    mine = groups[context.shard :: context.config.shards]
    if not mine:
        return StageOutput(files={})
    leading = groups[:: context.config.shards]
    if params.judging.judges:
        parts = split_parts(mine, params.prompts_per_part)
        output, rows = judge_by_panel(context, Panel(context), parts, leading, opened.verifiers)
        check_verifiers(context, rows, opened.verifiers)
        clear_opinions(context)
        opened.close()
        return replace(output, producers=opened.producers)
    judges = open_judges(context)
    with SharedParts(
        context,
        groups,
        size=params.prompts_per_part,
        table=JUDGEMENT,
        is_complete=is_complete,
        accepts=lambda rows: rows[0]["judge"] == judges.configured.version,
    ) as shared:
        started = time.monotonic()
        parts = shared.parts
        shard = Shard(context, judges, shared, leading, opened.verifiers)
        outcome = _judge(shard, judges, context, parts, shared.rows)
        if not outcome.fell_back:
            shard.help(judges.configured)
    check_verifiers(context, _rows(outcome.judged, parts), opened.verifiers)
    judged = outcome.judged
    rate = judges.tokens_read / max(time.monotonic() - started, 1e-9)
    files = {part.name: len(judged.rows[part.index]) for part in parts}
    if context.shard == 0:
        write_rows(context.folder / CANARIES_FILE, judged.canary_rows, CANARY)
        files[CANARIES_FILE] = len(judged.canary_rows)
    opened.close()
    return StageOutput(
        files=files,
        metrics=_measure(params, parts, outcome) | {JudgeMetrics.tokens_per_second: rate},
        producers=opened.producers,
    )


@dataclass(frozen=True)
class JudgingOutcome:
    """The judgements that count, and the measurements of their judge."""

    judged: JudgedShard
    opinions: PairedRewards | None
    fell_back: bool
    """The base model judged in the place of the configured judge."""
    unfit: bool
    """A gate refuses the judge; only with `onUnfit: Continue` does a stage end so."""


def check_gates(judging: JudgingSettings) -> None:
    """Raise BadConfigError when a gate asks for a figure that is not going to be measured."""
    gates = judging.gates
    canaries = judging.canaries
    if gates.min_base_agreement is not None and judging.base_agreement_prompts == 0:
        raise BadConfigError(
            "judging.gates.minBaseAgreement needs prompts that the base model judges too, but "
            "judging.baseAgreementPrompts is 0. Set it to 1 or more, or remove the gate."
        )
    asked = {
        "minCanaryMargin": (gates.min_canary_margin, "prompts", canaries.prompts),
        "minCanaryAuc": (gates.min_canary_auc, "prompts", canaries.prompts),
        "minInjectionMargin": (gates.min_injection_margin, "injections", canaries.injections * canaries.prompts),
    }
    for name, (least, field, count) in asked.items():
        if least is not None and count == 0:
            raise BadConfigError(
                f"judging.gates.{name} needs canaries, but judging.canaries.{field} is 0. Set it to 1 or more, or "
                "remove the gate."
            )


def check_verifiers(
    context: StageContext[JudgeParams], rows: Sequence[JudgementRow], verifiers: Sequence[Verifier] = ()
) -> None:
    """Hold verifiers whose values count to the limit of failures that the judge has (`gates.maxFailedShare`).

    Warns, or raises UnfitError where an unfit judge would stop the run: no other judge decides what a verifier cannot.
    Reasons for which answers were left undecided are always told.
    """
    reasons = explain_failures(verifiers)
    if reasons:
        context.warn(reasons)
    gates, weights = context.params.judging.gates, {reward.name: reward.weight for reward in context.params.rewards}
    refused = {
        name: share
        for name, share in undecided_shares(rows).items()
        if weights[name] > 0 and share > gates.max_failed_share
    }
    if not refused:
        return
    told = ", ".join(f"{name} {share:.1%}" for name, share in refused.items())
    text = (
        f"verifiers of spec.rewards could not decide so many answers: {told} (judging.gates.maxFailedShare is "
        f"{gates.max_failed_share:.1%}). An answer that is not decided has no reward. Add the column that is missing "
        "to the supplied prompts, simplify the schema, ask for longer answers where their language is checked, or set "
        f"the verifier's weight to 0.{f' {reasons}' if reasons else ''}"
    )
    if gates.on_unfit is not OnUnfitJudge.CONTINUE:
        raise UnfitError(text)
    context.warn(text)


def is_complete(part: Part[RolloutGroup], rows: Sequence[JudgementRow]) -> bool:
    """Whether `rows` are judgements by one judge of exactly the part's candidates, in order."""
    expected = [(row["prompt_id"], row["candidate"]) for group in part.inputs for row in group.candidates]
    found = [(row["prompt_id"], row["candidate"]) for row in rows]
    return found == expected and len({row["judge"] for row in rows}) == 1


def _judge(
    shard: Shard,
    judges: Judges,
    context: StageContext[JudgeParams],
    parts: Sequence[Part[RolloutGroup]],
    finished: Mapping[int, list[JudgementRow]],
) -> JudgingOutcome:
    """Judge with the configured judge, then, when it is unfit and the run file says so, with the base model.

    A part that the base model judged in an earlier attempt tells that the configured judge was found unfit then.
    Raises UnfitError when an unfit judge stops the run.
    """
    params = context.params
    fell_back = any(rows[0]["judge"] != judges.configured.version for rows in finished.values())
    judge = judges.base if fell_back else judges.configured
    kept = {index: rows for index, rows in finished.items() if rows[0]["judge"] == judge.version}
    judged = shard.judge(judge, kept, shares=not fell_back)
    opinions = shard.paired_rewards(judged)
    refusal = _find_refusal(judged, params, parts, opinions if shard.decides else None)
    on_unfit = params.judging.gates.on_unfit
    if refusal and not fell_back and judges.differ and on_unfit is OnUnfitJudge.USE_BASE:
        context.warn(f"the judge {judge.version} is unfit: {refusal}; the base model judges in its place")
        judged = shard.judge(judges.base, {}, shares=False)
        refusal = _find_refusal(judged, params, parts, opinions)
    configured = judges.configured.version
    if refusal and on_unfit is OnUnfitJudge.CONTINUE:
        context.warn(_explain(judged.judge.version, configured, params, refusal))
    elif refusal:
        raise UnfitError(_explain(judged.judge.version, configured, params, refusal))
    return JudgingOutcome(judged, opinions, fell_back=judged.judge.version != configured, unfit=refusal is not None)


def _find_refusal(
    judged: JudgedShard, params: JudgeParams, parts: Sequence[Part[RolloutGroup]], opinions: PairedRewards | None
) -> str | None:
    by_base = is_base(judged.judge)
    return find_unfitness(
        params.judging.gates,
        failed_share=unscored_share(_rows(judged, parts)),
        canaries=judged.trust,
        injections=judged.injection_trust,
        agreement=None if opinions is None or by_base else _agreement(opinions),
    )


def _explain(judge: str, configured: str, params: JudgeParams, refusal: str) -> str:
    remedy = "lower the gate if a weaker judge is acceptable, or use a larger model or a clearer objective"
    if judge != BASE_POLICY:
        remedy = f"set judging.judge: Base or judging.gates.onUnfit: UseBase, or {remedy}"
    elif judge != configured:
        remedy = f"the base model was tried after {configured} had failed as well; {remedy}"
    return (
        f"the judge {judge} is unfit for the objective {params.objective.name}: {refusal}. Training on its "
        f"rewards would teach the wrong thing: {remedy}."
    )


def _measure(
    params: JudgeParams, parts: Sequence[Part[RolloutGroup]], outcome: JudgingOutcome
) -> MetricValues[JudgeParams]:
    """Metrics of the judge whose rewards are in the artifact, the most important first."""
    judged, opinions = outcome.judged, outcome.opinions
    lengths = [answer_length(row) for part in parts for group in part.inputs for row in group.candidates]
    shape = judgement_metrics(_rows(judged, parts), lengths, params.objective)
    return {
        **shape.rewards,
        **_trust_metrics(judged.trust, _CANARY),
        **_trust_metrics(judged.injection_trust, _INJECTION),
        **shape.biases,
        JudgeMetrics.judge_tau: _agreement(opinions) if opinions else None,
        JudgeMetrics.judge_offset: _offset(opinions) if opinions else None,
        JudgeMetrics.fallback: float(outcome.fell_back),
        JudgeMetrics.unfit: float(outcome.unfit),
        JudgeMetrics.truncated_prompts: judged.truncated,
        JudgeMetrics.vote_std: mean_of(judged.spreads),
    }


def _trust_metrics(trust: CanaryTrust | None, metrics: Sequence[MetricDef[JudgeParams]]) -> MetricValues[JudgeParams]:
    """Margin, AUC and reward of canaries as the three `metrics`."""
    values = (trust.margin, trust.auc, trust.reward) if trust else (None, None, None)
    return dict(zip(metrics, values, strict=True))


def _agreement(opinions: PairedRewards) -> float:
    """Kendall's tau between configured judge and base model within groups, averaged: what GRPO's advantages feel."""
    return mean_of(kendall_tau(a, b) for a, b in zip(opinions.judge, opinions.base, strict=True))


def _offset(opinions: PairedRewards) -> float:
    """Mean reward by the configured judge minus mean reward by the base model."""
    return mean_offset([r for group in opinions.judge for r in group], [r for group in opinions.base for r in group])


def _rows(judged: JudgedShard, parts: Sequence[Part[RolloutGroup]]) -> list[JudgementRow]:
    return [row for part in parts for row in judged.rows[part.index]]
