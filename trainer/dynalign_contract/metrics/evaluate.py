"""What the stage evaluate reports."""

from typing import Final

from dynalign_contract.config import EvaluateParams
from dynalign_contract.metrics.definition import (
    AcrossShards,
    Export,
    IntervalDef,
    IntervalFamily,
    MetricDef,
    MetricFamily,
    StageMetrics,
    Unit,
)
from dynalign_contract.stages import Stage

_Metric: Final = MetricDef[EvaluateParams]
_Interval: Final = IntervalDef[EvaluateParams]


class EvaluateMetrics(StageMetrics):
    """Metrics of the stage evaluate; win rates are against the base model unless the name says otherwise."""

    stage = Stage.EVALUATE
    win_rate = _Interval(
        Unit.SHARE,
        "Share of held-out prompts on which the policy beats the base model, ties half.",
        export=Export(),
        exports_interval=True,
    )
    win_rate_lc = _Interval(
        Unit.SHARE, "Win rate against the base model at equal length of the answers.", export=Export()
    )
    win_rate_consistent = _Interval(
        Unit.SHARE, "Win rate without the prompts whose verdict changes with the order of the answers."
    )
    win_rate_previous = _Interval(
        Unit.SHARE, "Win rate against the policy that the iteration began with.", export=Export()
    )
    held_out_reward = _Interval(
        Unit.REWARD,
        "Mean reward of the policy's answers to the held-out prompts by judges that stay the same over the iterations.",
        export=Export(),
    )
    held_out_reward_delta = _Interval(
        Unit.PLAIN,
        "Mean reward of the policy's answers to the held-out prompts minus that of the base model's.",
        export=Export(),
        exports_interval=True,
    )
    preference = _Metric(Unit.SHARE, "Mean preference for the policy's answers; 0.5 means no preference.")
    win_rate_live = _Metric(Unit.SHARE, "Win rate by the policy as judge.")
    win_rate_endpoint = _Metric(Unit.SHARE, "Win rate by the endpoint's model as judge.")
    ties = _Metric(Unit.SHARE, "Share of comparisons that ended in a tie.")
    order_flips = _Metric(Unit.SHARE, "Share of comparisons that the order of the answers decides.")
    first_position = _Metric(Unit.SHARE, "Share of wins of the answer that was shown first.")
    regressed = _Metric(Unit.FLAG, "1 if the policy is worse than the base model, with confidence, 0 otherwise.")
    mean_length = _Metric(Unit.TOKENS, "Mean length of the policy's answers.")
    mean_length_base = _Metric(Unit.TOKENS, "Mean length of the base model's answers.")
    unfinished_thought_share = _Metric(
        Unit.SHARE, "Share of the policy's answers that are empty because they never left their thought."
    )
    unfinished_thought_share_base = _Metric(
        Unit.SHARE, "Share of the base model's answers that are empty because they never left their thought."
    )
    prompts = _Metric(Unit.COUNT, "Held-out prompts that were compared.")
    capability = _Interval(
        Unit.SHARE, "Mean score over the tasks of evaluation.capability, each of equal weight.", export=Export()
    )
    capability_delta = _Interval(
        Unit.PLAIN, "Capability minus the base model's.", export=Export(), exports_interval=True
    )
    capability_regressed = _Metric(
        Unit.FLAG, "1 if capability dropped by more than maxDrop, with confidence, 0 otherwise."
    )
    capability_items = _Metric(Unit.COUNT, "Items of all tasks.")
    task = MetricFamily("task", _Metric(Unit.SHARE, "Mean score of a task."))
    task_delta = MetricFamily("task", _Metric(Unit.PLAIN, "Mean score of a task minus the base model's."))
    verifier_value = MetricFamily("verifier", _Metric(Unit.PLAIN, "Mean value of a verifier, held-out prompts."))
    verifier_delta = IntervalFamily[EvaluateParams](
        "verifier", Unit.PLAIN, "Mean value of a verifier minus that of the base model's answers."
    )
    rating = _Interval(
        Unit.POINTS, "Bradley-Terry points above the base model; 400 for odds of 10 to 1.", export=Export()
    )
    judge_requests = _Metric(Unit.COUNT, "Requests to the endpoints of judges.", AcrossShards.SUM)
    judge_tokens = _Metric(Unit.TOKENS, "Tokens that the endpoints of judges read and wrote.", AcrossShards.SUM)
