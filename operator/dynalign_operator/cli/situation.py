"""A run in plain words: what it does, what it waits for, and what a person should do. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import AwaitedApproval
from dynalign_operator.api.durations import after
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase, StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.tables import describe_best, describe_seconds
from dynalign_operator.clusters.run_source import ListedRun, RunEvent, RunSnapshot
from dynalign_operator.manifests.overrides import count_gpus, count_pods
from dynalign_operator.manifests.volume import claim_name
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import describe_subject
from dynalign_operator.planning.budget import describe_budget
from dynalign_operator.planning.deadlines import job_limit, run_deadline
from dynalign_operator.planning.notifications import untold_condition
from dynalign_operator.planning.observed import JobObservation, JobPhase, Step
from dynalign_operator.planning.retries import pause_before_retry
from dynalign_operator.planning.stage_status import stage_status
from dynalign_operator.planning.waiting import Cause, correct_claim, explain_wait, find_cause

_NO_POD: Final = "FailedCreate"
"""Reason of the event with which the Job controller says that the API server takes no pod."""

_NO_VOLUME: Final = "ProvisioningFailed"
"""Reason of the event with which a StorageClass' provisioner says that it makes no volume for a claim."""
_VOLUME: Final = "ProvisioningSucceeded"


@dataclass
class Situation:
    """Sentences, in the order in which they matter."""

    does: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


def explain_situation(snapshot: RunSnapshot, events: tuple[RunEvent, ...], now: datetime) -> Situation:
    """What the run does, what it waits for, and what is to be done; times are those of `now`'s zone."""
    status = snapshot.run.status
    found = Situation()
    match status.phase:
        case Phase.SUCCEEDED:
            _explain_success(snapshot, found)
        case Phase.FAILED:
            _explain_failure(snapshot, found, now)
        case Phase.SUSPENDED:
            _explain_suspension(snapshot, found)
        case _:
            _explain_work(snapshot, events, found, now)
    degraded = condition_of(status, ConditionType.DEGRADED)
    if degraded is not None and degraded.status == "True":
        found.does.append(f"The model has become worse: {degraded.message}")
    if budget := describe_budget(snapshot.run):
        found.does.append(budget)
    if (untold := untold_condition(status)) is not None:
        found.to_do.append(untold.message)
    if not found.to_do:
        found.to_do.append("Nothing.")
    return found


def condition_of(status: AlignmentRunStatus, kind: ConditionType) -> Condition | None:
    """The run's condition of a type; None before it has one."""
    return next((condition for condition in status.conditions if condition.type is kind), None)


def stalled_condition(status: AlignmentRunStatus) -> Condition | None:
    """The condition Stalled while it is True."""
    found = condition_of(status, ConditionType.STALLED)
    return found if found is not None and found.status == "True" else None


def remark_on(run: ListedRun) -> str:
    """Why a run does not go on, in a word: a reason, `stopped`, `not valid`; empty for one that does or has ended."""
    if run.problem:
        return "not valid"
    stalled = stalled_condition(run.status)
    if stalled is not None:
        return stalled.reason
    if run.status.awaited_approval is not None and run.status.phase is Phase.RUNNING:
        return "awaits approval"
    works = run.status.phase in (Phase.RUNNING, Phase.PENDING)
    return "stopped" if works and not run.is_driven else ""


def count_iterations(run: ListedRun) -> str:
    """`2/10`, counted from 1 as in `status.progress`; empty before the first."""
    if run.run is None or run.status.iteration is None:
        return ""
    return f"{run.status.iteration + 1}/{max(run.run.spec.iterations, run.status.iteration + 1)}"


def stage_share(status: AlignmentRunStatus) -> str:
    """Share of the current stage that is done, such as `62%`; empty where it is not known."""
    last = status.progress.rpartition(" ")[2]
    return last if last.endswith("%") and status.phase is Phase.RUNNING else ""


def current_step(status: AlignmentRunStatus) -> Step | None:
    """The step that the run is at; None when every step is done, or before the first."""
    if status.stage is None:
        return None
    return Step(status.stage, None if status.stage in (Stage.FETCH, Stage.EXPORT) else status.iteration)


def count_requested_gpus(run: AlignmentRun) -> int:
    """GPUs that the pods of the run's current Job ask for, all together; 0 while it has none."""
    step = current_step(run.status)
    if step is None or run.status.phase not in (Phase.PENDING, Phase.RUNNING):
        return 0
    entry = stage_status(run.status, step)
    if not entry.job or entry.phase not in (StagePhase.PENDING, StagePhase.RUNNING):
        return 0
    return count_gpus(run.spec, step.stage) * count_pods(run.spec, step.stage)


def clock(time: datetime, now: datetime) -> str:
    """A time of day in `now`'s zone, with the date on another day."""
    local = time.astimezone(now.tzinfo)
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def span(start: datetime, end: datetime) -> str:
    """A span of time in words; a clock that is ahead gives none."""
    return describe_seconds(max(0.0, (end - start).total_seconds()))


def _explain_success(snapshot: RunSnapshot, found: Situation) -> None:
    status = snapshot.run.status
    took = (
        f" after {span(status.start_time, status.completion_time)}"
        if status.start_time and status.completion_time
        else ""
    )
    found.does.append(f"The run is complete{took}{describe_best(status.best)}.")
    export = f"{snapshot.place.files}/export"
    found.to_do.append(f"Nothing. The model lies in {export}.")


def _explain_failure(snapshot: RunSnapshot, found: Situation, now: datetime) -> None:
    run, status = snapshot.run, snapshot.run.status
    step, stalled = current_step(status), stalled_condition(status)
    where = f" in {step}, attempt {stage_status(status, step).attempt}" if step else ""
    at = f" at {clock(status.completion_time, now)}" if status.completion_time else ""
    reason = f" ({stalled.reason})" if stalled else ""
    found.does.append(f"The run failed{where}{at}{reason}.")
    if stalled is not None:
        found.does.append(stalled.message)
    if snapshot.place.is_cluster:
        retries = run.spec.policy.retries + 1
        patch = _patch(run, f'{{"spec":{{"policy":{{"retries":{retries}}}}}}}')
        found.to_do.append(
            "Remove the cause. The run goes on from its last finished stage as soon as its specification changes; "
            f"where that is not to blame: {patch}"
        )
    else:
        found.to_do.append(
            "Remove the cause and give `dynalign run FILE` again: it goes on from the last finished stage."
        )
    if stalled is not None:
        found.to_do.append(_runbook(stalled))


def _explain_suspension(snapshot: RunSnapshot, found: Situation) -> None:
    run, step = snapshot.run, current_step(snapshot.run.status)
    found.does.append(
        "The run is suspended: it has no Jobs and holds no GPUs." + (f" It stopped at {step}." if step else "")
    )
    found.waits.append("For spec.suspend: false. Finished work is kept.")
    if snapshot.place.is_cluster:
        patch = _patch(run, '{"spec":{"suspend":false}}')
        found.to_do.append(f"To go on: {patch}")
    else:
        found.to_do.append("To go on, set spec.suspend to false in the run file and give `dynalign run FILE` again.")


def _runbook(stalled: Condition) -> str:
    """Reference to the runbook's section about the reason of the condition Stalled."""
    return f"docs/runbook.md explains {stalled.reason}."


def _patch(run: AlignmentRun, patch: str) -> str:
    return f"kubectl patch ar {run.metadata.name} -n {run.metadata.namespace} --type=merge -p '{patch}'"


def _explain_work(snapshot: RunSnapshot, events: tuple[RunEvent, ...], found: Situation, now: datetime) -> None:
    run, status = snapshot.run, snapshot.run.status
    step, stalled = current_step(status), stalled_condition(status)
    if status.awaited_approval is not None and stalled is None:
        _explain_approval(snapshot, status.awaited_approval, found, now)
        return
    if stalled is not None and stalled.reason == reasons.BUDGET_EXCEEDED:
        _explain_budget(snapshot, stalled, found)
        return
    if not snapshot.is_driven:
        found.does.append("No dynalign process works on the run" + (f"; it stopped at {step}." if step else "."))
        found.to_do.append("Give `dynalign run FILE` again: it goes on where it stopped.")
        return
    if status.observed_generation is None and stalled is None:
        found.does.append("No operator has looked at the run yet.")
        found.to_do.append(
            "If that lasts, look at the operator: `kubectl get pods -A -l app.kubernetes.io/name=dynalign`, and at its "
            "chart's value `namespaces`, which must include the run's or be empty."
        )
        return
    if snapshot.place.is_cluster and status.observed_generation not in (None, run.metadata.generation):
        found.waits.append("For the operator to take up the latest change of the specification.")
    if stalled is not None:
        found.does.append(f"The run is held ({stalled.reason}) and is looked at again within a minute.")
        found.waits.append(stalled.message)
        found.to_do.append(f"Do what the message says; the run then goes on by itself. {_runbook(stalled)}")
        return
    if step is not None:
        _explain_step(snapshot, step, events, found, now)


def _explain_budget(snapshot: RunSnapshot, stalled: Condition, found: Situation) -> None:
    """The wait for a higher budget, which has no end."""
    found.does.append("The run is held by its budget and holds no GPU.")
    found.waits.append(stalled.message)
    if snapshot.run.status.observed_generation not in (None, snapshot.run.metadata.generation):
        found.waits.append("For the operator to take up the latest change of the specification.")
    if snapshot.place.is_cluster:
        patch = _patch(snapshot.run, '{"spec":{"policy":{"budget":{"gpuHours":HOURS}}}}')
        found.to_do.append(f"To go on: {patch}")
    else:
        found.to_do.append("Raise it in the run file and give `dynalign run FILE` again.")
    found.to_do.append(_runbook(stalled))


def _explain_approval(snapshot: RunSnapshot, awaited: AwaitedApproval, found: Situation, now: datetime) -> None:
    """The wait for a person: since when, what to look at, and the commands that end it."""
    place = snapshot.place
    found.does.append(f"The run waits for a person's approval ({awaited.gate}) and holds no GPU.")
    found.waits.append(
        f"For the approval of {describe_subject(awaited)}, since {clock(awaited.since, now)}. The wait has no end and "
        "does not count against spec.policy.deadline."
    )
    if note := _approval_note(snapshot.run.status):
        found.waits.append(note)
    look = (
        "the figures below, and a sample of the artifact in the run's files" if place.is_cluster else "the sample below"
    )
    how = " (docs/runbook.md, To look into the volume)" if place.is_cluster else ""
    found.to_do.append(f"Look at {look}{how}. Then `dynalign approve {place.arguments}`, or with --reject REASON.")
    if not place.is_cluster and not snapshot.is_driven:
        found.to_do.append("Then `dynalign run FILE` goes on with the run.")


def _approval_note(status: AlignmentRunStatus) -> str:
    """Why the annotation that is there is no decision about this; empty where there is none."""
    condition = condition_of(status, ConditionType.APPROVED)
    _, mark, note = (condition.message if condition is not None else "").partition("The annotation ")
    return mark + note


def _explain_step(
    snapshot: RunSnapshot, step: Step, events: tuple[RunEvent, ...], found: Situation, now: datetime
) -> None:
    """The current step: its retry, its queue, its pods that do not start, or its work."""
    run = snapshot.run
    entry = stage_status(run.status, step)
    if entry.phase is StagePhase.FAILED:
        _explain_retry(entry, step, found, now)
        return
    job = next((job for job in snapshot.jobs if job.name == entry.job and job.phase is JobPhase.ACTIVE), None)
    if job is not None and job.suspended:
        queue = run.spec.scheduling.queue_name
        found.does.append(f"Job {job.name} ({step}, attempt {entry.attempt}) is queued. {job.message}".rstrip())
        found.waits.append(
            f"For Kueue{f' (LocalQueue {queue})' if queue else ''} to admit it{_asked_gpus(run)}. This counts against "
            "spec.policy.deadline only."
        )
        found.to_do.append(f"Nothing, or look at the queue: `kubectl get workloads -n {run.metadata.namespace}`.")
        return
    if entry.phase is StagePhase.RUNNING:
        started = (job.start_time if job is not None else None) or entry.start_time
        lasts = f", for {span(started, now)}" if started else ""
        found.does.append(f"Job {entry.job} runs {step}, attempt {entry.attempt}{lasts}{_percent(run.status)}.")
    else:
        found.does.append(f"Job {entry.job or 'of the next stage'} ({step}, attempt {entry.attempt}) has not started.")
    if job is not None and snapshot.place.is_cluster:
        is_held = entry.phase is not StagePhase.RUNNING or job.message or job.missing_pods
        if is_held:
            _explain_pods(run, job, events, found, now)
    _explain_remark(run.status, step, entry, found)
    if run.status.start_time is not None:
        limit = run_deadline(run.spec.policy, run.status.start_time)
        if (limit.at - now).total_seconds() < 3600:
            found.waits.append(f"The run fails at {clock(limit.at, now)}: spec.policy.deadline is near.")


def _explain_retry(entry: StageStatus, step: Step, found: Situation, now: datetime) -> None:
    verb = "was disrupted" if entry.disruptions else "failed"
    at = f" at {clock(entry.completion_time, now)}" if entry.completion_time else ""
    found.does.append(f"Attempt {entry.attempt} of {step} {verb}{at}: {entry.message}")
    if entry.completion_time is None:
        return
    due = after(entry.completion_time, max(map(pause_before_retry, (entry.failures, entry.disruptions))))
    when = f"at {clock(due, now)}, in {span(now, due)}" if due > now else "now"
    found.waits.append(f"For the next attempt, {entry.attempt + 1}: {when}.")


def _explain_pods(
    run: AlignmentRun, job: JobObservation, events: tuple[RunEvent, ...], found: Situation, now: datetime
) -> None:
    """Pods that do not start: the cluster's words, the remedy, and when the wait ends."""
    if find_cause(job) is Cause.NO_POD:
        refusals = [event for event in events if event.job == job.name and event.reason == _NO_POD]
        found.waits.append(f"For the cluster to take its pods{_asked_gpus(run)}.")
        found.waits += [f"The cluster says: {refusal.message}" for refusal in refusals[-1:]]
    else:
        found.waits.append(f"For its pods to start{_asked_gpus(run)}.")
        found.waits += [f"The cluster says: {job.message}"] if job.message else []
    said = f"The cluster says: {job.message.rstrip('.')}. "
    provisioned = [event for event in events if event.reason in (_NO_VOLUME, _VOLUME)]
    if find_cause(job) is Cause.SILENT and provisioned and provisioned[-1].reason == _NO_VOLUME:
        found.waits.append(f"The cluster says of the run's claim: {provisioned[-1].message}")
        found.to_do.append(correct_claim(run, claim_name(run)))
    else:
        found.to_do.append(explain_wait(run, job).removeprefix(said))
    limit = job_limit(run, job)
    if limit is not None and limit.reason == reasons.PENDING_TIMEOUT:
        timeout = run.spec.policy.pending_timeout
        found.waits.append(f"The run fails at {clock(limit.at, now)} if they do not (pendingTimeout: {timeout}).")


def _explain_remark(status: AlignmentRunStatus, step: Step, entry: StageStatus, found: Situation) -> None:
    """What the operator adds in the condition Progressing, unless it has been said."""
    progressing = condition_of(status, ConditionType.PROGRESSING)
    if progressing is None or found.waits:
        return
    for usual in (
        f"Job {entry.job} runs {step}, attempt {entry.attempt}.",
        f"Attempt {entry.attempt} of {step} waits for a place to run.",
    ):
        if remark := progressing.message.partition(usual)[2].strip():
            found.waits.append(remark)


def _percent(status: AlignmentRunStatus) -> str:
    last = status.progress.rpartition(" ")[2]
    return f"; {last} of it is done" if last.endswith("%") else ""


def _asked_gpus(run: AlignmentRun) -> str:
    gpus = count_requested_gpus(run)
    if not gpus:
        return ""
    return f"; {gpus} GPU{'s are' if gpus > 1 else ' is'} requested"
