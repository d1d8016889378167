"""What the page shows of a run that waits for approval, and which decisions it passes on. Pure."""

from dynalign_operator.api.approvals import AwaitedApproval, Decision
from dynalign_operator.api.status import Phase
from dynalign_operator.clusters.run_source import RunSnapshot
from dynalign_operator.planning.approvals import describe_subject
from dynalign_operator.ui.changes import ChangeRefusedError
from dynalign_operator.ui.models import ApprovalView, DecisionRequest


def awaited_of(snapshot: RunSnapshot) -> AwaitedApproval | None:
    """What the run waits with; None for a run that waits for no person now."""
    status = snapshot.run.status
    return status.awaited_approval if status.phase is Phase.RUNNING else None


def build_approval(snapshot: RunSnapshot, sample: str) -> ApprovalView | None:
    """What the person is asked; None where nothing is."""
    awaited = awaited_of(snapshot)
    if awaited is None:
        return None
    return ApprovalView(
        gate=awaited.gate,
        iteration=awaited.iteration,
        artifact=awaited.artifact,
        subject=describe_subject(awaited),
        since=awaited.since,
        sample=sample,
    )


def check_decision(snapshot: RunSnapshot, wish: DecisionRequest) -> AwaitedApproval:
    """What the decision is about, as the run has it now. Raises ChangeRefusedError where that is something else."""
    name, awaited = snapshot.run.metadata.name, awaited_of(snapshot)
    if awaited is None:
        raise ChangeRefusedError(f"{name} waits for no approval any more; nothing was done.")
    if (wish.gate, wish.iteration, wish.artifact) != (awaited.gate, awaited.iteration, awaited.artifact):
        raise ChangeRefusedError(
            f"{name} now waits with {describe_subject(awaited)}, which is not what the page showed; nothing was done. "
            "Look at it again."
        )
    if wish.decision is Decision.REJECTED and not wish.reason.strip():
        raise ChangeRefusedError("A rejection needs a reason, which the run's status keeps; nothing was done.")
    return awaited
