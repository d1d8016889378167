"""Several judges: which fields belong to which of them, and what they need of the rest of the run."""

from typing import Final

from dynalign_contract.settings import (
    Combine,
    Judge,
    JudgeSettings,
    JudgingMethod,
    JudgingSettings,
    Noise,
    OnUnfitJudge,
    PanelJudge,
)
from dynalign_operator.api.rules.rule import Rule

_AT: Final = "spec.judging.judges[]"
_COUNTING: Final = "self.judges.filter(x, double(x.weight) > 0.0)"
"""CEL for the judges whose rewards count."""


def _uses_votes(judge: JudgeSettings) -> bool:
    return judge.method is JudgingMethod.VOTES


def _count(judging: JudgingSettings) -> int:
    return sum(judge.counts for judge in judging.judges)


def _has_both_opinions(judging: JudgingSettings) -> bool:
    """Whether the base model and a judge that is another model both judge."""
    return judging.need_engine and any(judge.judge is not PanelJudge.BASE for judge in judging.judges)


JUDGES_RULES: Final = (
    Rule(
        at=_AT,
        field="endpoint",
        cel="self.judge != 'Endpoint' || has(self.endpoint)",
        message="is missing with judge: Endpoint; give it a url and a model, or write judge: Base",
        holds=lambda judge: judge.judge is not PanelJudge.ENDPOINT or judge.endpoint is not None,
    ),
    Rule(
        at=_AT,
        field="endpoint",
        cel="self.judge == 'Endpoint' || !has(self.endpoint)",
        message="has an effect with judge: Endpoint only; set judge to Endpoint, or remove endpoint",
        holds=lambda judge: judge.judge is PanelJudge.ENDPOINT or judge.endpoint is None,
    ),
    Rule(
        at=_AT,
        field="lag",
        cel="self.judge == 'Lagged' || !has(self.lag)",
        message="is for judge: Lagged only; set judge to Lagged, or remove lag",
        holds=lambda judge: judge.judge is PanelJudge.LAGGED or judge.lag is None,
    ),
    Rule(
        at=_AT,
        field="method",
        cel="self.judge != 'Endpoint' || !has(self.method) || self.method != 'Votes'",
        message="is Votes, for which a judge continues an answer that is begun, and a server does not; write "
        "ExpectedScore, or remove method",
        holds=lambda judge: judge.judge is not PanelJudge.ENDPOINT or not _uses_votes(judge),
    ),
    Rule(
        at=_AT,
        field="votes",
        cel="!has(self.votes) || (has(self.method) && self.method == 'Votes')",
        message="is for method: Votes only; set this judge's method to Votes, or remove votes",
        holds=lambda judge: judge.votes is None or _uses_votes(judge),
    ),
    Rule(
        at=_AT,
        field="rationaleTokens",
        cel="!has(self.rationaleTokens) || (has(self.method) && self.method == 'Votes')",
        message="is for method: Votes only; set this judge's method to Votes, or remove rationaleTokens",
        holds=lambda judge: judge.rationale_tokens is None or _uses_votes(judge),
    ),
    Rule(
        at="spec.judging",
        field="judges",
        cel="self.judges.all(x, self.judges.exists_one(y, x.name == y.name))",
        message="has two judges of the same name; give each a name of its own",
        holds=lambda judging: len({judge.name for judge in judging.judges}) == len(judging.judges),
    ),
    Rule(
        at="spec.judging",
        field="judges",
        cel=f"size(self.judges) == 0 || size({_COUNTING}) > 0",
        message="has no judge whose weight is above 0; give one of them a weight",
        holds=lambda judging: not judging.judges or _count(judging) > 0,
    ),
    Rule(
        at="spec.judging",
        field="judge",
        cel="size(self.judges) == 0 || self.judge == 'Live'",
        message="has no effect beside judges; name it among them, or remove it",
        holds=lambda judging: not judging.judges or judging.judge is Judge.LIVE,
    ),
    Rule(
        at="spec.judging",
        field="combine",
        cel=f"self.combine == 'Mean' || size({_COUNTING}) > 1",
        message="has an effect with two judges whose weights are above 0 only; add one to judges, or remove combine",
        holds=lambda judging: judging.combine is Combine.MEAN or _count(judging) > 1,
    ),
    Rule(
        at="spec.judging",
        field="combine",
        cel="self.combine != 'Minimum' || self.judges.all(x, double(x.weight) in [0.0, 1.0])",
        message="is Minimum, which knows no weights; write 1 or 0 as the weight of every judge, or another combine",
        holds=lambda judging: (
            judging.combine is not Combine.MINIMUM or all(judge.weight in (0, 1) for judge in judging.judges)
        ),
    ),
    Rule(
        at="spec.judging",
        field="minJudges",
        cel=f"!has(self.minJudges) || self.minJudges <= size({_COUNTING})",
        message="is more than there are judges whose weights are above 0; lower it, or add one to judges",
        holds=lambda judging: judging.min_judges is None or judging.min_judges <= _count(judging),
    ),
    Rule(
        at="spec.judging",
        field="noise",
        cel=f"self.noise == 'Votes' || size({_COUNTING}) > 1",
        message="is Disagreement, which takes two judges whose weights are above 0; add one to judges, or remove noise",
        holds=lambda judging: judging.noise is Noise.VOTES or _count(judging) > 1,
    ),
    Rule(
        at="spec.judging",
        field="gates.onUnfit",
        cel=f"self.gates.onUnfit != 'LeaveOut' || size({_COUNTING}) > 1",
        message="is LeaveOut, which takes two judges whose weights are above 0; add one to judges, or write Stop",
        holds=lambda judging: judging.gates.on_unfit is not OnUnfitJudge.LEAVE_OUT or _count(judging) > 1,
    ),
    Rule(
        at="spec.judging",
        field="gates.onUnfit",
        cel="self.gates.onUnfit != 'UseBase' || size(self.judges) == 0",
        message="is UseBase, which is for a single judge; write LeaveOut, so that the other judges judge on, or Stop",
        holds=lambda judging: judging.gates.on_unfit is not OnUnfitJudge.USE_BASE or not judging.judges,
    ),
    Rule(
        at="spec.judging",
        field="gates.minBaseAgreement",
        cel="!has(self.gates.minBaseAgreement) || size(self.judges) == 0 || "
        "(self.judges.exists(x, x.judge != 'Endpoint') && self.judges.exists(x, x.judge != 'Base'))",
        message="compares judges with the base model, which takes one judge of the run's own model, and one that is "
        "not the base model; add one to judges, or remove the gate",
        holds=lambda judging: (
            judging.gates.min_base_agreement is None or not judging.judges or _has_both_opinions(judging)
        ),
    ),
)
