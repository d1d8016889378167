"""What a shard that several judges scored looks like in numbers. Pure."""

from collections.abc import Mapping, Sequence

from dynalign_contract.config import JudgeParams
from dynalign_contract.metrics import JudgeMetrics, MetricValues
from dynalign_contract.records import JudgementRow, answer_length
from dynalign_trainer.judge.metrics import judgement_metrics
from dynalign_trainer.judge.panel.figures import Rewards, agreement_with_others
from dynalign_trainer.judge.panel.opinions import Opinions
from dynalign_trainer.judge.panel.questions import Questions, keys_of
from dynalign_trainer.judge.panel.rows import disagreements_by_key
from dynalign_trainer.judge.panel.verdict import Verdict
from dynalign_trainer.judge.trust import CanaryTrust
from dynalign_trainer.scoring.scores import mean_of


def panel_metrics(
    params: JudgeParams,
    questions: Questions,
    opinions: Mapping[str, Opinions],
    verdict: Verdict,
    rows: Sequence[JudgementRow],
) -> MetricValues[JudgeParams]:
    """Metrics of the combined reward, and of every judge by its name; the most important first."""
    lengths = [answer_length(row) for group in questions.own for row in group.candidates]
    shape = judgement_metrics(rows, lengths, params.objective)
    together = verdict.combined_figures
    said = [row for found in opinions.values() for row in found.rows.values()]
    apart = disagreements_by_key(questions.own, verdict.rule, opinions)
    return {
        **_by_judge(opinions, verdict),
        **shape.rewards,
        JudgeMetrics.disagreement: mean_of(apart.values()),
        **_trust(together.canaries, together.injections),
        JudgeMetrics.judge_tau: together.agreement,
        JudgeMetrics.judge_offset: together.offset,
        JudgeMetrics.unfit: float(verdict.is_unfit),
        **shape.biases,
        JudgeMetrics.fallback: 0.0,
        JudgeMetrics.truncated_prompts: sum(row["truncated"] for row in said),
        JudgeMetrics.vote_std: mean_of(row["spread"] for row in said),
        **_details_by_judge(questions, opinions, verdict),
    }


def _trust(canaries: CanaryTrust | None, injections: CanaryTrust | None) -> MetricValues[JudgeParams]:
    """Margin, AUC and reward of canaries and of injections."""
    return {
        JudgeMetrics.canary_margin: canaries.margin if canaries else None,
        JudgeMetrics.canary_auc: canaries.auc if canaries else None,
        JudgeMetrics.canary_reward: canaries.reward if canaries else None,
        JudgeMetrics.injection_margin: injections.margin if injections else None,
        JudgeMetrics.injection_auc: injections.auc if injections else None,
        JudgeMetrics.injection_reward: injections.reward if injections else None,
    }


def _by_judge(opinions: Mapping[str, Opinions], verdict: Verdict) -> MetricValues[JudgeParams]:
    """What each judge gives, what it fails to give, and whether it is trusted."""
    values: MetricValues[JudgeParams] = {}
    for name, found in opinions.items():
        figures = verdict.figures[name]
        values |= {
            JudgeMetrics.judge_reward.of(name): mean_of(row["reward"] for row in found.rows.values()),
            JudgeMetrics.judge_failed_share.of(name): figures.failed_share,
            JudgeMetrics.judge_left_out.of(name): float(name in verdict.left_out),
            JudgeMetrics.judge_canary_auc.of(name): figures.canaries.auc if figures.canaries else None,
        }
    return values


def _details_by_judge(
    questions: Questions, opinions: Mapping[str, Opinions], verdict: Verdict
) -> MetricValues[JudgeParams]:
    """Further measurements of each judge, and what it cost: the first that a result has no room for."""
    values: MetricValues[JudgeParams] = {}
    rewards = {name: Rewards(found.rewards, ()) for name, found in opinions.items()}
    groups = [keys_of(group) for group in questions.own]
    for name, found in opinions.items():
        injections = verdict.figures[name].injections
        values[JudgeMetrics.judge_injection_auc.of(name)] = injections.auc if injections else None
        if len(opinions) > 1:
            values[JudgeMetrics.judge_agreement.of(name)] = agreement_with_others(name, rewards, groups)
        if found.member.is_outside:
            usage = found.member.model.usage
            values |= {
                JudgeMetrics.judge_requests.of(name): usage.requests,
                JudgeMetrics.judge_tokens.of(name): usage.tokens,
                JudgeMetrics.judge_cached_tokens.of(name): usage.cached,
            }
    return values
