"""Which judges of a panel are fit, whose rewards count, and what follows where one is not."""

from collections.abc import Mapping
from dataclasses import dataclass

from dynalign_contract.config import JudgeParams
from dynalign_contract.errors import UnfitError
from dynalign_contract.settings import OnUnfitJudge
from dynalign_trainer.judge.panel.figures import Figures, Rewards, combine, measure
from dynalign_trainer.judge.panel.opinions import Opinions
from dynalign_trainer.judge.panel.questions import Key, Questions
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.scoring.combining import CombinationRule


@dataclass(frozen=True)
class Verdict:
    """What the gates make of a panel."""

    figures: Mapping[str, Figures]
    """Judge -> its measurements."""
    refusals: Mapping[str, str]
    """Unfit judge -> why, as a clause. Judges of weight 0 are no less unfit; it only matters to none."""
    left_out: frozenset[str]
    """Judges that would count, but were left out."""
    rule: CombinationRule
    """How the rewards of those that count become one."""
    combined: Rewards
    combined_figures: Figures
    combined_refusal: str | None

    @property
    def is_unfit(self) -> bool:
        """Whether rewards count although a gate refuses their judge, or all judges together."""
        return self.combined_refusal is not None or any(name in self.refusals for name in self.rule.weights)


def decide(
    context: StageContext[JudgeParams],
    questions: Questions,
    opinions: Mapping[str, Opinions],
    base: Mapping[Key, float] | None,
) -> Verdict:
    """Hold each judge, and then those that are left together, to the gates.

    A judge that is refused is left out, stays with a warning, or stops the run, as `gates.onUnfit` says. Raises
    UnfitError where it stops the run, and where fewer judges than `judging.minJudges` are left.
    """
    judging = context.params.judging
    rewards = {
        name: Rewards(found.rewards, [score.reward for score in found.canaries]) for name, found in opinions.items()
    }
    figures = {
        name: measure(questions, rewards[name], None if found.member.is_base else base)
        for name, found in opinions.items()
    }
    refusals = _refusals(context.params, questions, opinions, figures)
    counting = {judge.name: judge.weight for judge in judging.judges if judge.counts}
    left_out = _leave_out(context, opinions, {name: why for name, why in refusals.items() if name in counting})
    weights = {name: weight for name, weight in counting.items() if name not in left_out}
    quorum = judging.min_judges or max(len(weights), 1)
    if len(weights) < quorum:
        raise UnfitError(_explain_too_few(context.params, refusals, left=len(weights), quorum=quorum))
    rule = CombinationRule(judging.combine, weights, quorum)
    combined = combine(rule, rewards)
    together = measure(questions, combined, base)
    refusal = together.refusal(judging.gates, decides=questions.decides)
    if refusal is not None:
        _refuse_combination(context, refusal)
    return Verdict(figures, refusals, left_out, rule, combined, together, refusal)


def _refusals(
    params: JudgeParams, questions: Questions, opinions: Mapping[str, Opinions], figures: Mapping[str, Figures]
) -> dict[str, str]:
    found = {}
    for name, opinion in opinions.items():
        refusal = opinion.failure or figures[name].refusal(params.judging.gates, decides=questions.decides)
        budget = opinion.member.model.exhausted_budget()
        if refusal is not None:
            found[name] = f"{refusal}; {budget}" if budget else refusal
    return found


def _leave_out(
    context: StageContext[JudgeParams], opinions: Mapping[str, Opinions], refusals: Mapping[str, str]
) -> frozenset[str]:
    """The refused judges that are left out; warns of every refused judge. Raises UnfitError where one stops the run."""
    on_unfit = context.params.judging.gates.on_unfit
    for name, refusal in refusals.items():
        judge = f"the judge {name} ({opinions[name].member.model.version})"
        if on_unfit is OnUnfitJudge.LEAVE_OUT:
            context.warn(f"{judge} is unfit: {refusal}; the iteration's rewards are those of the other judges")
            continue
        text = (
            f"{judge} is unfit for the objective {context.params.objective.name}: {refusal}. Its rewards count, and "
            "training on them would teach the wrong thing: set judging.gates.onUnfit: LeaveOut or this judge's weight "
            "to 0, lower the gate if a weaker judge is acceptable, or use another judge."
        )
        if on_unfit is not OnUnfitJudge.CONTINUE:
            raise UnfitError(text)
        context.warn(text)
    return frozenset(refusals) if on_unfit is OnUnfitJudge.LEAVE_OUT else frozenset()


def _explain_too_few(params: JudgeParams, refusals: Mapping[str, str], *, left: int, quorum: int) -> str:
    told = "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    return (
        f"{left} of the judges of judging.judges are left, and {quorum} are needed"
        f"{' (judging.minJudges)' if params.judging.min_judges else ''}: {told}. Lower the gates if weaker judges are "
        "acceptable, add a judge, or use a clearer objective."
    )


def _refuse_combination(context: StageContext[JudgeParams], refusal: str) -> None:
    """Warn of a combination that the gates refuse, or raise UnfitError."""
    text = (
        f"the judges together are unfit for the objective {context.params.objective.name}: {refusal}. Training on "
        "their combined reward would teach the wrong thing: change judging.combine, weights or judging.minJudges, "
        "lower the gate if weaker judges are acceptable, or use other judges."
    )
    if context.params.judging.gates.on_unfit is not OnUnfitJudge.CONTINUE:
        raise UnfitError(text)
    context.warn(text)
