"""Which notifications of a run are due. Pure.

What is sent follows from the status, not from its changes: an operator that was away sends what still holds, and what
has passed meanwhile is not sent. A notification's id follows from the run, the occurrence and the address, so it is the
same after a restart; the ids of those that are over stay in the status.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from dynalign_contract.metrics import JudgeMetrics, read_metrics
from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import AwaitedApproval
from dynalign_operator.api.notifications import Notification, NotifyEvent, Webhook
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, IterationStatus, Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning import reasons
from dynalign_operator.planning.conditions import ConditionUpdate, set_condition

KEPT_NOTIFICATIONS: Final = 40
"""Notifications that the status remembers beside those that would still be due."""
STALLED_FOR: Final = timedelta(minutes=1)
"""How long a run has been held before that is told: many causes pass by themselves."""

_NOTIFICATIONS_ARE_OFF: Final = (
    "spec.notify names webhooks, but this installation sends no notifications. Ask its administrator to set the "
    "chart's values notifications.enabled and notifications.secrets, or remove spec.notify."
)


@dataclass(frozen=True)
class Occurrence:
    """Something of a run that may be told."""

    event: NotifyEvent
    time: datetime
    key: str
    """Tells it from others of its event."""
    reason: str
    message: str
    iteration: int | None = None
    """0-based; None where it is about the run as a whole."""


@dataclass(frozen=True)
class DueNotification:
    """An occurrence that a webhook is to be told."""

    id: str
    webhook: Webhook
    index: int
    """Place of the webhook in `spec.notify`."""
    occurrence: Occurrence


def due_notifications(run: AlignmentRun) -> tuple[DueNotification, ...]:
    """Everything that holds now and is not over."""
    over = {entry.id for entry in run.status.notifications}
    return tuple(due for due in _wanted(run, run.status) if due.id not in over)


def with_notifications(
    run: AlignmentRun, status: AlignmentRunStatus, over: Iterable[Notification]
) -> AlignmentRunStatus:
    """The status with notifications that are over. Those that would be due otherwise are never forgotten."""
    known = {entry.id: entry for entry in (*status.notifications, *over)}
    if not known:
        return status
    needed = {due.id for due in _wanted(run, status)}
    spare = [entry.id for entry in known.values() if entry.id not in needed][-KEPT_NOTIFICATIONS:]
    kept = needed | set(spare)
    return status.evolve(notifications=tuple(entry for entry in known.values() if entry.id in kept))


def with_notified(
    run: AlignmentRun, status: AlignmentRunStatus, now: datetime, *, are_sent: bool
) -> AlignmentRunStatus:
    """The status with the condition Notified, which only runs with webhooks have."""
    if not run.spec.notify:
        kept = tuple(condition for condition in status.conditions if condition.type is not ConditionType.NOTIFIED)
        return status if kept == status.conditions else status.evolve(conditions=kept)
    reason, message = reasons.NOTIFICATIONS_ON, "The webhooks of spec.notify are told of the run's events."
    if not are_sent:
        reason, message = reasons.NOTIFICATIONS_OFF, _NOTIFICATIONS_ARE_OFF
    update = ConditionUpdate(ConditionType.NOTIFIED, reason, message, is_true=are_sent)
    return status.evolve(conditions=set_condition(status.conditions, update, run.metadata.generation, now))


def untold_condition(status: AlignmentRunStatus) -> Condition | None:
    """The condition Notified while it is False: the installation does not tell the webhooks that the run names."""
    found = (condition for condition in status.conditions if condition.type is ConditionType.NOTIFIED)
    return next((condition for condition in found if condition.status == "False"), None)


def _wanted(run: AlignmentRun, status: AlignmentRunStatus) -> Iterator[DueNotification]:
    if not run.spec.notify:
        return
    found = tuple(_occurrences(status))
    for index, webhook in enumerate(run.spec.notify):
        for occurrence in found:
            if occurrence.event in webhook.events:
                yield DueNotification(_id(run, webhook, occurrence), webhook, index, occurrence)


def _id(run: AlignmentRun, webhook: Webhook, occurrence: Occurrence) -> str:
    whole = (
        run.metadata.uid or f"{run.metadata.namespace}/{run.metadata.name}",
        webhook.url,
        str(occurrence.event),
        occurrence.key,
    )
    return f"msg_{sha256(chr(10).join(whole).encode()).hexdigest()[:32]}"


def _occurrences(status: AlignmentRunStatus) -> Iterator[Occurrence]:
    conditions = {condition.type: condition for condition in status.conditions}
    stalled = conditions.get(ConditionType.STALLED)
    if status.phase is Phase.SUCCEEDED and status.completion_time is not None:
        at = status.completion_time
        message = "The run is complete and its model is exported."
        yield Occurrence(NotifyEvent.SUCCEEDED, at, at.isoformat(), "Succeeded", message)
    if status.phase is Phase.FAILED and status.completion_time is not None:
        at, reason, message = status.completion_time, "Failed", "The run has failed."
        if stalled is not None and stalled.status == "True":
            reason, message = stalled.reason, stalled.message
        yield Occurrence(NotifyEvent.FAILED, at, at.isoformat(), reason, message)
    elif stalled is not None and stalled.status == "True":
        yield _held(stalled)
    if status.awaited_approval is not None and status.phase is Phase.RUNNING:
        yield _awaiting(status.awaited_approval, conditions.get(ConditionType.APPROVED))
    yield from _of_iterations(status)


def _held(stalled: Condition) -> Occurrence:
    at = stalled.last_transition_time
    return Occurrence(NotifyEvent.STALLED, at, at.isoformat(), stalled.reason, stalled.message)


def _awaiting(awaited: AwaitedApproval, approved: Condition | None) -> Occurrence:
    return Occurrence(
        NotifyEvent.AWAITING_APPROVAL,
        awaited.since,
        f"{awaited.gate}/{awaited.iteration}/{awaited.artifact}",
        "AwaitingApproval",
        approved.message if approved is not None else "",
        awaited.iteration,
    )


def _of_iterations(status: AlignmentRunStatus) -> Iterator[Occurrence]:
    judged = _latest(status, Stage.JUDGE)
    if judged is not None:
        iteration, at, unfit = judged
        if unfit:
            message = "A gate of spec.judging.gates refuses the judge, and the run goes on."
            yield Occurrence(NotifyEvent.JUDGE_UNFIT, at, str(iteration), "Unfit", message, iteration)
    evaluated = _latest(status, Stage.EVALUATE)
    if evaluated is not None:
        iteration, at, regressed = evaluated
        if regressed:
            message = "The evaluation finds, with confidence, that the policy is worse than the base model."
            yield Occurrence(NotifyEvent.REGRESSED, at, str(iteration), "Regression", message, iteration)


def _latest(status: AlignmentRunStatus, stage: Stage) -> tuple[int, datetime, bool] | None:
    """The latest iteration in which a stage has ended, when that was, and whether its result is a bad one."""
    for iteration in reversed(status.iterations):
        entry = next((entry for entry in iteration.stages if entry.stage is stage), None)
        if entry is not None and entry.artifact is not None and entry.completion_time is not None:
            return iteration.index, entry.completion_time, _is_bad(iteration, stage)
    return None


def _is_bad(iteration: IterationStatus, stage: Stage) -> bool:
    if stage is Stage.EVALUATE:
        return iteration.regressed
    metrics = next(entry.metrics for entry in iteration.stages if entry.stage is stage)
    return (read_metrics(stage, metrics).get(JudgeMetrics.unfit) or 0) > 0
