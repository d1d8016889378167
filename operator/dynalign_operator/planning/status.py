"""Summary fields of the status: progress, estimate, best iteration, conditions."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from dynalign_contract.estimate import Estimate
from dynalign_contract.settings import OnRegression
from dynalign_operator.api.status import (
    AlignmentRunStatus,
    Condition,
    ConditionType,
    IterationStatus,
    Phase,
    StagePhase,
)
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import GateView
from dynalign_operator.planning.conditions import ConditionUpdate, approved, completed, set_conditions, stalled
from dynalign_operator.planning.eta import estimate_completion
from dynalign_operator.planning.gangs import explain_gang
from dynalign_operator.planning.observed import JobObservation, Step
from dynalign_operator.planning.policies import best_iteration
from dynalign_operator.planning.regressions import explain_regression
from dynalign_operator.planning.sequence import is_stopped, last_iteration
from dynalign_operator.planning.stage_status import stage_status
from dynalign_operator.planning.stored_run import Blocker
from dynalign_operator.planning.waiting import explain_progress

T = TypeVar("T")
_DIGITS: Final = 3
"""Decimal places of the numbers at the top of the status."""


@dataclass(frozen=True)
class RunPosition:
    """Where a run stands after the decisions of a plan."""

    step: Step | None
    """None when every step is done."""
    job: JobObservation | None = None
    """The active Job of the step."""
    blocker: Blocker | None = None
    gate: GateView | None = None
    """The gate at which the run waits for a person."""


def summarise(
    run: AlignmentRun, status: AlignmentRunStatus, position: RunPosition, now: datetime
) -> AlignmentRunStatus:
    """Fill in every field that follows from the phase, the stages and the position."""
    step, is_held = position.step, position.gate is not None or position.blocker is not None
    running = status.phase is Phase.RUNNING and not is_held
    estimate = estimate_completion(run.spec, status, step, position.job, now) if running and step else None
    return status.evolve(
        observed_generation=run.metadata.generation,
        iteration=step.iteration if step else max((i.index for i in status.iterations), default=None),
        stage=step.stage if step else None,
        progress=progress_text(run.spec, status, position),
        estimated_completion_time=estimate,
        best=best_iteration(run.spec, status),
        reward=_round(_latest(entry.reward for entry in status.iterations)),
        win_rate=_round_estimate(_latest(entry.win_rate for entry in status.iterations)),
        capability_delta=_round_estimate(_latest(entry.capability_delta for entry in status.iterations)),
        conditions=_conditions(run, status, position, now),
    )


def progress_text(spec: AlignmentRunSpec, status: AlignmentRunStatus, position: RunPosition) -> str:
    """`3/10 train 62%`, or `3/10 rollout: judge 80%`: iterations are counted from 1 here, for people."""
    step = position.step
    if step is None:
        last = last_iteration(status)
        begun = 0 if last is None else last.index + 1
        return f"{begun}/{begun}"
    total = max(spec.iterations, 1 + (step.iteration or 0))
    words = [str(step.stage)] if step.iteration is None else [f"{step.iteration + 1}/{total}", str(step.stage)]
    if position.gate is not None:
        return " ".join([*words, "awaits approval"])
    if position.blocker is not None and position.blocker.reason == reasons.BUDGET_EXCEEDED:
        return " ".join([*words, "held by budget"])
    progress = position.job.progress if position.job else None
    if progress is not None and progress.part is not None:
        words[-1:] = [f"{words[-1]}:", str(progress.part)]
    fraction = progress.fraction if progress else None
    return " ".join(words if fraction is None else [*words, f"{fraction:.0%}"])


def _conditions(
    run: AlignmentRun, status: AlignmentRunStatus, position: RunPosition, now: datetime
) -> tuple[Condition, ...]:
    end = completed(status.phase)
    progressing, reason, message = _progressing(run, status, position, now)
    degraded = _degraded(run.spec, status)
    updates = [
        replace(end, type=ConditionType.READY),
        ConditionUpdate(ConditionType.PROGRESSING, reason, message, is_true=progressing),
        stalled(position.blocker, is_awaiting=position.gate is not None),
        end,
        ConditionUpdate(
            ConditionType.DEGRADED,
            reasons.REGRESSION if degraded else reasons.NO_REGRESSION,
            degraded or "The latest evaluation has not found the model worse than the base model.",
            is_true=bool(degraded),
        ),
    ]
    has_gates = bool(run.spec.policy.approval) or any(c.type is ConditionType.APPROVED for c in status.conditions)
    if has_gates and status.phase is not Phase.SUSPENDED:
        updates.append(approved(position.gate, status, position.blocker))
    return set_conditions(status.conditions, updates, run.metadata.generation, now)


def _progressing(
    run: AlignmentRun, status: AlignmentRunStatus, position: RunPosition, now: datetime
) -> tuple[bool, str, str]:
    """Status, reason and message of the Progressing condition."""
    if status.phase is Phase.SUCCEEDED:
        return False, reasons.SUCCEEDED, "Every stage is done."
    if status.phase is Phase.FAILED:
        return False, reasons.FAILED, f"The run failed in {position.step}; see the condition Stalled."
    if status.phase is Phase.SUSPENDED:
        return False, reasons.SUSPENDED, "spec.suspend is true; set it to false to go on where the run stopped."
    if position.gate is not None:
        return False, reasons.AWAITING_APPROVAL, "The run waits for a person; see the condition Approved."
    if position.step is None or position.blocker is not None:
        return False, reasons.PENDING, "The run waits; see the condition Stalled."
    job = position.job
    waits = (explain_progress(run, job, now) or explain_gang(run, job, now)) if job is not None else ""
    return True, *_stage_progress(status, position.step, position.job, waits)


def _stage_progress(status: AlignmentRunStatus, step: Step, job: JobObservation | None, waits: str) -> tuple[str, str]:
    """Reason and message; `waits` says why pods do not start, and is empty when all is well."""
    entry = stage_status(status, step)
    if entry.phase is StagePhase.FAILED:
        again = f" after a pause, for it was the {entry.disruptions}. in a row" if entry.disruptions > 1 else ""
        verb = "was disrupted" if entry.disruptions else "failed"
        return (
            reasons.RETRYING,
            f"Attempt {entry.attempt} of {step} {verb} and will be repeated{again}: {entry.message}",
        )
    if job is not None and job.suspended:
        return reasons.QUEUED, f"Job {job.name} waits in the queue. {job.message}".rstrip()
    if entry.phase is StagePhase.RUNNING:
        return reasons.STAGE_RUNNING, f"Job {entry.job} runs {step}, attempt {entry.attempt}. {waits}".rstrip()
    return reasons.PENDING, f"Attempt {entry.attempt} of {step} waits for a place to run. {waits}".rstrip()


def _degraded(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> str:
    """What is wrong with the model itself; empty when nothing is."""
    rated = [entry for entry in status.iterations if entry.win_rate is not None or entry.regressed]
    latest: IterationStatus | None = max(rated, key=lambda entry: entry.index, default=None)
    if latest is None or not latest.regressed:
        return ""
    best = best_iteration(spec, status)
    refuge = "the base model" if best is None or best.iteration is None else f"iteration {best.iteration}, the best one"
    consequence = {
        OnRegression.CONTINUE: "the run goes on all the same (evaluation.onRegression: Continue)",
        OnRegression.STOP: f"the loop stops here and exports {refuge} (evaluation.onRegression: Stop)",
        OnRegression.ROLLBACK: f"the next iteration starts from {refuge} (evaluation.onRegression: Rollback)",
    }
    action = OnRegression.STOP if is_stopped(spec, status) else spec.evaluation.on_regression
    return f"Iteration {latest.index} {explain_regression(spec.evaluation, latest)}; {consequence[action]}."


def _latest(values: Iterable[T | None]) -> T | None:
    """The last value that is known."""
    return next((value for value in reversed(list(values)) if value is not None), None)


def _round(value: float | None) -> float | None:
    """A number with few digits: printer columns show all that it has."""
    return None if value is None else round(value, _DIGITS) + 0.0


def _round_estimate(estimate: Estimate | None) -> Estimate | None:
    """An estimate with few digits."""
    if estimate is None:
        return None
    return Estimate(value=round(estimate.value, _DIGITS) + 0.0, low=_round(estimate.low), high=_round(estimate.high))
