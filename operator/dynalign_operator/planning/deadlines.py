"""Every wait has an end (docs/design.md, "Time limits")."""

from dataclasses import dataclass
from datetime import datetime

from dynalign_operator.api.durations import after, parse_duration
from dynalign_operator.api.v1alpha1 import AlignmentRun, RunPolicy
from dynalign_operator.planning import reasons
from dynalign_operator.planning.gangs import describe_gang
from dynalign_operator.planning.observed import JobObservation
from dynalign_operator.planning.waiting import explain_wait, waiting_since


@dataclass(frozen=True)
class Limit:
    """The end of a wait, and what is said when it is reached."""

    at: datetime
    reason: str
    message: str


def run_deadline(policy: RunPolicy, start_time: datetime) -> Limit:
    """When the run has to be over. The clock starts anew when a suspended or ended run goes on, as a Job's does."""
    return Limit(
        at=after(start_time, parse_duration(policy.deadline)),
        reason=reasons.DEADLINE_EXCEEDED,
        message=f"the run has not finished within spec.policy.deadline ({policy.deadline}). "
        "Raise it to go on from the last finished stage.",
    )


def job_limit(run: AlignmentRun, job: JobObservation) -> Limit | None:
    """When an unfinished Job has waited or stood still for too long.

    Limits count from what the observing process has seen: neither its own restart nor a node's clock ends a Job. None
    while a queue holds the Job back, and while its progress is unknown, which is no proof that it stands still.
    """
    policy = run.spec.policy
    if job.suspended:
        return None
    if job.start_time is None or job.stranded:
        since = job.seen_since or waiting_since(job)
        return Limit(
            at=after(max(since, waiting_since(job)), parse_duration(policy.pending_timeout)),
            reason=reasons.PENDING_TIMEOUT,
            message=f"Job {job.name} did not start within spec.policy.pendingTimeout ({policy.pending_timeout}). "
            f"{explain_wait(run, job)} Then raise spec.policy.pendingTimeout, or change another field, and the run "
            "goes on.",
        )
    if not job.is_progress_known:
        return None
    waits = explain_wait(run, job) if job.message or job.missing_pods else describe_gang(run, job)
    since = job.seen_since or job.start_time
    return Limit(
        at=after(max(since, job.last_progress_time or since), parse_duration(policy.stall_timeout)),
        reason=reasons.STALL_TIMEOUT,
        message=f"Job {job.name} made no progress for spec.policy.stallTimeout ({policy.stall_timeout}); its log tells "
        f"what it did last. {waits}".rstrip(),
    )
