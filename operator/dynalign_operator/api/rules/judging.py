"""The judge, its canaries and its gates."""

from typing import Final

from dynalign_contract.settings import CanarySettings, Judge, JudgingMethod, JudgingSettings, OnUnfitJudge
from dynalign_operator.api.rules.rule import Rule

_RATIONALE_TOKENS: Final[int] = JudgingSettings().rationale_tokens
_INJECTIONS: Final[int] = CanarySettings().injections

JUDGING_RULES: Final = (
    Rule(
        at="spec.judging",
        field="lag",
        cel="self.judge == 'Lagged' || self.lag == 1",
        message="has an effect with judge: Lagged only; set judge to Lagged, or remove lag",
        holds=lambda judging: judging.judge is Judge.LAGGED or judging.lag == 1,
    ),
    Rule(
        at="spec.judging",
        field="votes",
        cel="self.method == 'Votes' || self.votes == 1",
        message="has an effect with method: Votes only; set method to Votes, or remove votes",
        holds=lambda judging: judging.method is JudgingMethod.VOTES or judging.votes == 1,
    ),
    Rule(
        at="spec.judging",
        field="rationaleTokens",
        cel=f"self.method == 'Votes' || self.rationaleTokens == {_RATIONALE_TOKENS}",
        message="has an effect with method: Votes only; set method to Votes, or remove rationaleTokens",
        holds=lambda judging: judging.method is JudgingMethod.VOTES or judging.rationale_tokens == _RATIONALE_TOKENS,
    ),
    Rule(
        at="spec.judging.canaries",
        field="injections",
        cel=f"self.prompts > 0 || self.injections in [0, {_INJECTIONS}]",
        message="has an effect only when prompts is more than 0; raise prompts, or remove injections",
        holds=lambda canaries: canaries.prompts > 0 or canaries.injections in (0, _INJECTIONS),
    ),
    Rule(
        at="spec.judging",
        field="gates.minInjectionMargin",
        cel="!has(self.gates.minInjectionMargin) || (self.canaries.prompts > 0 && self.canaries.injections > 0)",
        message="needs injected answers; set canaries.prompts and canaries.injections to 1 or more, or remove the gate",
        holds=lambda judging: (
            judging.gates.min_injection_margin is None
            or (judging.canaries.prompts > 0 and judging.canaries.injections > 0)
        ),
    ),
    Rule(
        at="spec.judging",
        field="gates.minBaseAgreement",
        cel="!has(self.gates.minBaseAgreement) || self.baseAgreementPrompts > 0",
        message="needs prompts that the base model judges too; raise baseAgreementPrompts, or remove the gate",
        holds=lambda judging: judging.gates.min_base_agreement is None or judging.base_agreement_prompts > 0,
    ),
    Rule(
        at="spec.judging",
        field="gates.minBaseAgreement",
        cel="!(self.judge == 'Base' && has(self.gates.minBaseAgreement))",
        message="has no effect with judge: Base, which always agrees with itself; remove it, or choose another judge",
        holds=lambda judging: not (judging.judge is Judge.BASE and judging.gates.min_base_agreement is not None),
    ),
    Rule(
        at="spec.judging",
        field="gates",
        cel="self.canaries.prompts > 0 || !(has(self.gates.minCanaryMargin) || has(self.gates.minCanaryAuc))",
        message="has a canary gate, but canaries.prompts is 0; set canaries.prompts to 1 or more, or remove the gate",
        holds=lambda judging: (
            judging.canaries.prompts > 0
            or (judging.gates.min_canary_margin is None and judging.gates.min_canary_auc is None)
        ),
    ),
    Rule(
        at="spec.judging",
        field="gates.onUnfit",
        cel="!(self.judge == 'Base' && self.gates.onUnfit == 'UseBase')",
        message="is UseBase, but the base model is the judge already; write Stop, or choose another judge",
        holds=lambda judging: not (judging.judge is Judge.BASE and judging.gates.on_unfit is OnUnfitJudge.USE_BASE),
    ),
)
