"""What is said of a training gang whose nodes have not met: who waits for which address, since when, and why."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from dynalign_contract.gang import WaitCause
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.service import coordinator, service_name
from dynalign_operator.planning.observed import JobObservation

PATIENCE: Final = timedelta(seconds=60)
"""Node 0 checks its inputs and builds the batch before it listens: so long a wait is worth no word."""
_SILENCE: Final = timedelta(seconds=100)
"""So long a running gang that has told of no step, nor of a wait, is worth a word."""


def explain_gang(run: AlignmentRun, job: JobObservation, now: datetime) -> str:
    """Who waits for whom, and the remedy; empty for other Jobs, and while there is nothing to say yet."""
    return describe_gang(run, job) if any(at <= now for at in _due(run, job)) else ""


def describe_gang(run: AlignmentRun, job: JobObservation) -> str:
    """Say it without waiting; empty for other Jobs, and for a gang that has taken a step."""
    if not _may_wait(run, job):
        return ""
    waits = job.progress.waits if job.progress is not None else ()
    address = coordinator(run, job.name)
    if not waits:
        return (
            f"No node of the training has told of a step yet. Its {run.spec.training.nodes} nodes meet at {address}; "
            f"`kubectl logs job/{job.name} -n {run.metadata.namespace} --all-pods` says which of them wait for it. "
            f"{_remedy(run, {WaitCause.SILENT, WaitCause.NAME})}"
        )
    told = ", ".join(f"node {wait.node} since {wait.since:%H:%M:%S} UTC" for wait in waits)
    return (
        f"Nodes of the training wait for node 0 at {address}: {told}. "
        f"{_remedy(run, {wait.cause for wait in waits})} It goes on by itself once they can connect."
    )


def gang_wakes(run: AlignmentRun, job: JobObservation, now: datetime) -> Iterator[datetime]:
    """When there may be a word to say that there is not yet."""
    return (at for at in _due(run, job) if at > now)


def _due(run: AlignmentRun, job: JobObservation) -> Iterator[datetime]:
    if not _may_wait(run, job) or job.start_time is None:
        return
    waits = job.progress.waits if job.progress is not None else ()
    yield from (wait.since + PATIENCE for wait in waits)
    if not waits:
        yield job.start_time + _SILENCE


def _may_wait(run: AlignmentRun, job: JobObservation) -> bool:
    """Whether this is a gang of which no step is known."""
    if job.stage is not Stage.TRAIN or run.spec.training.nodes == 1 or job.start_time is None:
        return False
    return job.progress is None or job.progress.total <= 0


def _remedy(run: AlignmentRun, causes: set[WaitCause]) -> str:
    """What to look at, one sentence a cause."""
    sentences = {
        WaitCause.NAME: "The name must be known: look at the pod of node 0, the headless Service "
        f"{service_name(run)} and the cluster's DNS.",
        WaitCause.REFUSED: "Node 0 does not listen yet: look at its log.",
        WaitCause.SILENT: "The nodes' pods must reach each other: look at network policies, and at firewalls that drop "
        "forwarded packets (iptables -S FORWARD).",
    }
    return " ".join(sentence for cause, sentence in sentences.items() if cause in causes)
