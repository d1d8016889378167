"""Which weights play which part: who answers, who judges, what is evaluated, what is exported."""

from collections.abc import Iterable

from dynalign_contract.config import BASE_POLICY, Policy, policy_version
from dynalign_contract.settings import Judge, OnRegression
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
        best = _highest_win_rate([entry for entry in earlier if not entry.regressed])
        return BASE if best is None else trained_policy(status, best.index)
    return trained_policy(status, iteration - 1)


def judge_policy(spec: AlignmentRunSpec, status: AlignmentRunStatus, iteration: int) -> Policy:
    """The policy that judges an iteration's candidates."""
    if spec.judging.judge is Judge.BASE:
        return BASE
    lag = spec.judging.lag if spec.judging.judge is Judge.LAGGED else 0
    return start_policy(spec, status, iteration - lag)


def exported_policy(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> Policy:
    """The policy at the end. A run that stopped because it got worse exports its best one whatever was asked for."""
    best, last = best_iteration(status), last_iteration(status)
    if best is not None and (spec.export.policy is ExportedPolicy.BEST or is_stopped(spec, status)):
        return trained_policy(status, best.iteration)
    if last is None:
        raise MissingArtifactError("status.iterations")
    return trained_policy(status, last.index)


def best_iteration(status: AlignmentRunStatus) -> BestIteration | None:
    """The iteration to use, and why; None before the first one has been trained."""
    best = _highest_win_rate(status.iterations)
    if best is not None:
        reason = f"highest held-out win rate against the base model: {best.win_rate:.3f}"
        if best.win_rate_low is not None and best.win_rate_high is not None:
            reason += f" ({best.win_rate_low:.3f} to {best.win_rate_high:.3f})"
    else:
        best = max((i for i in status.iterations if i.policy), key=lambda i: i.index, default=None)
        reason = "the latest; none has been evaluated yet"
    if best is None or best.policy is None:
        return None
    exported = status.export.artifact if status.export is not None and is_done(status.export) else None
    return BestIteration(
        iteration=best.index,
        win_rate=best.win_rate,
        reason=reason,
        model_uri=exported.path if exported is not None else best.policy.path,
    )


def _highest_win_rate(iterations: Iterable[IterationStatus]) -> IterationStatus | None:
    """Of equals the earlier one: the same quality for less drift from the base model."""
    rated = [
        (entry.win_rate, -entry.index, entry) for entry in iterations if entry.policy and entry.win_rate is not None
    ]
    return max(rated, key=lambda item: item[:2])[2] if rated else None
