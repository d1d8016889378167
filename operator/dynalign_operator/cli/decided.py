"""What has been decided about a run and what follows, as a sentence for the person who decided. Pure."""

from dynalign_operator.api.approvals import AwaitedApproval, Decision
from dynalign_operator.clusters.run_source import RunSnapshot
from dynalign_operator.planning.approvals import describe_subject


def describe_sent(snapshot: RunSnapshot, awaited: AwaitedApproval, decision: Decision, by: str) -> str:
    """`alice approved the judged answers that iteration 2 would train on. The run goes on.`"""
    is_approved = decision is Decision.APPROVED
    verb = "approved" if is_approved else "refused"
    if snapshot.place.is_cluster or snapshot.is_driven:
        then = "The run goes on." if is_approved else "The run ends."
    else:
        then = f"`dynalign run FILE` {'goes on with the run' if is_approved else 'ends the run, with exit code 12'}."
    return f"{by} {verb} {describe_subject(awaited)}. {then}"
