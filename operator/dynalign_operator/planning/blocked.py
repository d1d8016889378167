"""Status of a run that cannot be planned as it is: an invalid object, or one whose plan could not be applied."""

from datetime import datetime

from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.planning import reasons
from dynalign_operator.planning.conditions import ConditionUpdate, completed, set_conditions, stalled
from dynalign_operator.planning.stored_run import BlockedRun, Blocker, InvalidRun, StoredRun


def invalid_status(run: InvalidRun, now: datetime) -> AlignmentRunStatus:
    """Status of an invalid object, with its validation errors; a corrected spec resumes the run.

    A run that has begun keeps its phase, and its Jobs continue to their end: nothing is wrong with them, and an
    operator that is rolled back and forth ends no run. One that never began is Failed.
    """
    stored, message = run.stored, run.problem
    status = stored.status
    if status.fetch is not None:
        living = ", ".join(f"Job {name}" for name in run.living_jobs)
        then = f"{living} goes on to its end, and then the run waits" if living else "The run waits"
        message = f"{message} {then} until that is corrected, here or by an operator that accepts it."
        return _with_conditions(stored, Blocker(reasons.BAD_CONFIG, message), reasons.PENDING, status.phase, now)
    failed = _with_conditions(stored, Blocker(reasons.BAD_CONFIG, message), reasons.FAILED, Phase.FAILED, now)
    return failed.evolve(
        phase=Phase.FAILED,
        completion_time=status.completion_time or now,
        observed_generation=stored.generation,
    )


def blocked_status(run: BlockedRun, now: datetime) -> AlignmentRunStatus:
    """Status of a run whose plan could not be made or applied; the next plan that is applied replaces it.

    A run that has ended, and has been changed since, still waits to be resumed: for it `observed_generation` stays.
    """
    status = run.stored.status
    blocked = _with_conditions(run.stored, run.blocker, reasons.PENDING, status.phase, now)
    if status.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return blocked
    return blocked.evolve(observed_generation=run.stored.generation)


def _with_conditions(
    stored: StoredRun, blocker: Blocker, progressing: str, phase: Phase, now: datetime
) -> AlignmentRunStatus:
    """The status with every condition that a blocker decides; Degraded stays, for it is about the model."""
    updates = (
        ConditionUpdate(ConditionType.READY, blocker.reason, blocker.message, is_true=False),
        ConditionUpdate(ConditionType.PROGRESSING, progressing, blocker.message, is_true=False),
        stalled(blocker),
        completed(phase),
    )
    conditions: tuple[Condition, ...] = set_conditions(stored.status.conditions, updates, stored.generation, now)
    return stored.status.evolve(conditions=conditions)
