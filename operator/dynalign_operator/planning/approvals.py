"""Gates: stages that do not start before a person has approved what they start from. Pure.

A gate is looked at only where a Job is about to be created, so a change of `policy.approval` stops nothing that runs. A
decision counts once, for the gate, iteration and artifact that it names, and is stored before the Job is created.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import (
    APPROVAL_ANNOTATION,
    Approval,
    ApprovalTextError,
    AwaitedApproval,
    Decision,
    Gate,
    parse_request,
    request_digest,
)
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec
from dynalign_operator.planning.errors import MissingArtifactError
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.policies import exported_policy
from dynalign_operator.planning.sequence import last_iteration
from dynalign_operator.planning.stage_status import stage_status

KEPT_APPROVALS: Final = 20
"""Decisions that the status keeps; those of iterations that are kept whole are among them."""
_GATES: Final = {Stage.TRAIN: Gate.BEFORE_TRAIN, Stage.EXPORT: Gate.BEFORE_EXPORT}


class Ruling(Enum):
    """What a gate says of its stage."""

    OPEN = auto()
    """The stage may start."""
    WAITING = auto()
    """Nobody has decided yet."""
    APPROVED = auto()
    """A person has just approved: the stage may start once that is stored."""
    REJECTED = auto()
    """A person has just refused."""


@dataclass(frozen=True)
class GateView:
    """A gate at one moment."""

    ruling: Ruling
    awaited: AwaitedApproval | None = None
    """None where the stage has no gate, or an earlier decision has opened it."""
    decision: Approval | None = None
    """The decision that was just found."""
    note: str = ""
    """Why the annotation is no decision about this; empty where there is none, or where it is old."""


def look_at_gate(
    run: AlignmentRun, status: AlignmentRunStatus, step: Step, now: datetime, *, verified: bool
) -> GateView:
    """Whether a stage may start. `verified` says whether the name in a decision can be believed.

    Raises MissingArtifactError where there is nothing to approve.
    """
    gate = _GATES.get(step.stage)
    if gate is None or gate not in run.spec.policy.approval:
        return GateView(Ruling.OPEN)
    awaited = _awaited(run.spec, status, gate, step, now)
    known = next((a for a in status.approvals if (a.gate, a.iteration) == (gate, awaited.iteration)), None)
    if known is not None and known.decision is Decision.APPROVED and known.artifact == awaited.artifact:
        return GateView(Ruling.OPEN)
    text = run.metadata.annotations.get(APPROVAL_ANNOTATION, "")
    if not text or (known is not None and known.request == request_digest(text)):
        return GateView(Ruling.WAITING, awaited)
    try:
        request = parse_request(text)
    except ApprovalTextError as error:
        return GateView(Ruling.WAITING, awaited, note=f"The annotation {APPROVAL_ANNOTATION} {error}.")
    if not request.fits(awaited):
        about = f"{request.gate} of iteration {request.iteration}"
        return GateView(
            Ruling.WAITING, awaited, note=f"The annotation {APPROVAL_ANNOTATION} is about {about}, or older."
        )
    decision = Approval(
        gate=gate,
        iteration=awaited.iteration,
        artifact=awaited.artifact,
        decision=request.decision,
        by=request.by,
        verified=verified,
        time=now,
        reason=request.reason,
        request=request_digest(text),
    )
    ruling = Ruling.APPROVED if request.decision is Decision.APPROVED else Ruling.REJECTED
    return GateView(ruling, awaited, decision)


def with_decision(status: AlignmentRunStatus, decision: Approval) -> AlignmentRunStatus:
    """The status with a decision, in the place of an earlier one about the same gate and iteration."""
    about = (decision.gate, decision.iteration)
    others = [entry for entry in status.approvals if (entry.gate, entry.iteration) != about]
    return status.evolve(approvals=tuple([*others, decision][-KEPT_APPROVALS:]))


def with_awaited(status: AlignmentRunStatus, view: GateView | None, now: datetime) -> AlignmentRunStatus:
    """The status with what is awaited now. A wait that has ended moves the start from which the deadline counts."""
    before, awaited = status.awaited_approval, None if view is None else view.awaited
    if before is not None and (awaited is None or awaited.since != before.since):
        status = status.evolve(start_time=start_without_wait(status, now))
    return status.evolve(awaited_approval=awaited)


def start_without_wait(status: AlignmentRunStatus, now: datetime) -> datetime:
    """The start from which the deadline counts, moved by the time that the run has waited for a person until now."""
    start, awaited = status.start_time or now, status.awaited_approval
    return start if awaited is None else start + max(timedelta(0), now - max(awaited.since, start))


def explain_wait_for_approval(view: GateView) -> str:
    """The message of the condition Approved while the run waits."""
    awaited = view.awaited
    if awaited is None:
        return ""
    subject = describe_subject(awaited)
    return (
        f"The run waits for a person and holds no GPU. `dynalign describe` shows {subject}; `dynalign approve` lets "
        f"the run go on, and `dynalign approve --reject REASON` ends it. {view.note}".rstrip()
    )


def describe_subject(awaited: AwaitedApproval) -> str:
    """What a person looks at before the decision."""
    if awaited.gate is Gate.BEFORE_TRAIN:
        return f"the judged answers that iteration {awaited.iteration} would train on"
    return f"the evaluation of the model that would be exported after iteration {awaited.iteration}"


def describe_decision(decision: Approval) -> str:
    """`alice approved the training of iteration 2`, and whether the name can be believed."""
    subject = "the training of" if decision.gate is Gate.BEFORE_TRAIN else "the export after"
    verb = "approved" if decision.decision is Decision.APPROVED else "refused"
    name = decision.by if decision.verified else f"{decision.by} (unverified name)"
    reason = f": {decision.reason.rstrip('.')}" if decision.reason else ""
    return f"{name} {verb} {subject} iteration {decision.iteration}{reason}."


def _awaited(
    spec: AlignmentRunSpec, status: AlignmentRunStatus, gate: Gate, step: Step, now: datetime
) -> AwaitedApproval:
    last = last_iteration(status)
    iteration = step.iteration if step.iteration is not None else (last.index if last is not None else 0)
    artifact = _subject(spec, status, gate, iteration)
    before = status.awaited_approval
    since = now
    if before is not None and (before.gate, before.iteration, before.artifact) == (gate, iteration, artifact):
        since = before.since
    return AwaitedApproval(gate=gate, iteration=iteration, artifact=artifact, since=since)


def _subject(spec: AlignmentRunSpec, status: AlignmentRunStatus, gate: Gate, iteration: int) -> str:
    """Digest of what is approved."""
    if gate is Gate.BEFORE_TRAIN:
        judged = stage_status(status, Step(Stage.JUDGE, iteration)).artifact
        if judged is None:
            raise MissingArtifactError(f"status.iterations[{iteration}].stages[judge].artifact")
        return judged.digest
    policy = exported_policy(spec, status)
    if policy.adapter is not None:
        return policy.adapter.digest
    if status.fetch is None or status.fetch.artifact is None:
        raise MissingArtifactError("status.fetch.artifact")
    return status.fetch.artifact.digest
