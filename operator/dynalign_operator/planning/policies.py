"""Which weights play which part: who answers, who judges, what is evaluated, what is exported."""

import math
from collections.abc import Iterable, Sequence

from dynalign_contract.config import BASE_POLICY, Policy, policy_version
from dynalign_contract.settings import Judge, JudgeSettings, OnRegression, PanelJudge
from dynalign_operator.api.status import AlignmentRunStatus, BestIteration, IterationStatus
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec, ExportedPolicy
from dynalign_operator.planning.errors import MissingArtifactError
from dynalign_operator.planning.sequence import is_done, is_stopped, last_iteration

BASE = Policy(version=BASE_POLICY)


def trained_policy(status: AlignmentRunStatus, iteration: int) -> Policy:
    """The policy that an iteration's training wrote. Raises MissingArtifactError."""
    found = next((entry.policy for entry in status.iterations if entry.index == iteration), None)
    if found is None:
        raise MissingArtifactError(f"status.iterations[{iteration}].policy")
    return Policy(version=policy_version(iteration), adapter=found)


def start_policy(spec: AlignmentRunSpec, status: AlignmentRunStatus, iteration: int) -> Policy:
    """The policy at the start of an iteration, which writes its candidates.

    It is the one that the iteration before has trained; with `onRegression: Rollback`, when that one got worse, the one
    of the best iteration until then that did not, or the base model where there is none.
    """
    if iteration <= 0:
        return BASE
    earlier = [entry for entry in status.iterations if entry.index < iteration]
    before = next((entry for entry in earlier if entry.index == iteration - 1), None)
    if spec.evaluation.on_regression is OnRegression.ROLLBACK and before is not None and before.regressed:
        best = _highest_win_rate(entry for entry in earlier if not entry.regressed)
        return BASE if best is None else trained_policy(status, best.index)
    return trained_policy(status, iteration - 1)


def judge_policy(spec: AlignmentRunSpec, status: AlignmentRunStatus, iteration: int) -> Policy:
    """The policy that judges an iteration's candidates alone; the base model where there are several judges."""
    judging = spec.judging
    if judging.judges or judging.judge is Judge.BASE:
        return BASE
    return start_policy(spec, status, iteration - (judging.lag if judging.judge is Judge.LAGGED else 0))


def panel_policies(spec: AlignmentRunSpec, status: AlignmentRunStatus, iteration: int) -> dict[str, Policy]:
    """Name -> policy of each of several judges that is the run's own model."""
    return {
        judge.name: BASE if judge.judge is PanelJudge.BASE else start_policy(spec, status, iteration - _lag(judge))
        for judge in spec.judging.judges
        if judge.judge is not PanelJudge.ENDPOINT
    }


def _lag(judge: JudgeSettings) -> int:
    """Iterations that a judge is behind."""
    return (judge.lag or 1) if judge.judge is PanelJudge.LAGGED else 0


def exported_policy(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> Policy:
    """The policy at the end. A run that stopped because it got worse exports its best one whatever was asked for."""
    last = last_iteration(status)
    if last is None:
        raise MissingArtifactError("status.iterations")
    best = best_iteration(spec, status)
    if best is None or not _exports_best(spec, status):
        return trained_policy(status, last.index)
    return BASE if best.iteration is None else trained_policy(status, best.iteration)


def best_iteration(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> BestIteration | None:
    """The iteration to use, and why; None before the first one has been trained.

    One that got worse, be it in the win rate or in capability, is never the best: where every evaluated one has, it is
    none of them but the base model.
    """
    sound = [entry for entry in status.iterations if not entry.regressed]
    best = _highest_win_rate(sound)
    if best is not None:
        reason = _reason(best, [entry for entry in sound if _win_rate(entry) == _win_rate(best)])
    elif any(entry.regressed for entry in status.iterations):
        return _base_model(spec, status)
    else:
        best = max((i for i in status.iterations if i.policy), key=lambda i: i.index, default=None)
        reason = "the latest; none has been evaluated yet"
    if best is None or best.policy is None:
        return None
    exported = _exported_model(status) if _exports_best(spec, status) or best == last_iteration(status) else None
    return BestIteration(
        iteration=best.index, win_rate=best.win_rate, reason=reason, model_uri=exported or best.policy.path
    )


def _base_model(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> BestIteration:
    """The base model as the best, for every evaluated iteration is worse."""
    reason = "every evaluated iteration is worse than the base model"
    least = _highest_win_rate(status.iterations)
    if least is not None and least.win_rate is not None:
        reason += f"; the highest held-out win rate against it is {least.win_rate.text()}, of iteration {least.index}"
    fetched = status.fetch.artifact.path if status.fetch is not None and status.fetch.artifact is not None else ""
    exported = _exported_model(status) if _exports_best(spec, status) else None
    return BestIteration(reason=reason, model_uri=exported or fetched)


def _exports_best(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> bool:
    return spec.export.policy is ExportedPolicy.BEST or is_stopped(spec, status)


def _exported_model(status: AlignmentRunStatus) -> str | None:
    """Folder of the exported model, relative to the run's folder; None before there is one."""
    export = status.export
    return export.artifact.path if export is not None and export.artifact is not None and is_done(export) else None


def _reason(best: IterationStatus, equals: Sequence[IterationStatus]) -> str:
    """Why an evaluated iteration is the best; `equals` are the sound ones of its win rate, itself included."""
    rate = best.win_rate.text() if best.win_rate else "unknown"
    reason = f"highest held-out win rate against the base model: {rate}"
    if best.capability_delta is not None:
        reason += f"; capability changed by {best.capability_delta.text()}"
    if sum(entry.preference == best.preference for entry in equals) > 1:
        reason += "; the earliest of equals, with the least drift from the base model"
    elif len(equals) > 1 and best.preference is not None:
        reason += f"; of {len(equals)} equals the one with the clearest preference, {best.preference:.3f}"
    return reason


def _highest_win_rate(iterations: Iterable[IterationStatus]) -> IterationStatus | None:
    """Find the iteration with the highest win rate; ties go to the higher mean preference.

    Remaining ties go to the earlier one, which has the same quality and less drift from the base model.
    """
    rated = [entry for entry in iterations if entry.policy and entry.win_rate is not None]
    return max(rated, key=lambda entry: (_win_rate(entry), entry.preference or 0.0, -entry.index), default=None)


def _win_rate(entry: IterationStatus) -> float:
    """The win rate of an iteration that was evaluated; NaN, which equals nothing, of another."""
    return math.nan if entry.win_rate is None else entry.win_rate.value
