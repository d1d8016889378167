"""The planner: from what is observed to what is to be done. Pure and total.

`plan` is called again and again, with nothing remembered but the status that it wrote. It looks at one step of the
run's sequence at a time: a Job that succeeded is absorbed into the status and the next step is looked at, one that
failed is judged, one that is active is held to its limits, and where there is none, one is created. Two rules keep a
run safe from itself: no Job is created while another one of the run lives, so an artifact has one writer; and a Job
that the status expects but that was not observed is created again *under the same name*, so that a stale observation
does no harm. Jobs of side stages (the report) are exempt from the first rule and are decided about after all else, in
`reporting`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Unpack

from dynalign_contract.result import ArtifactRef
from dynalign_contract.stages import SHARDED_STAGES, SIDE_STAGES
from dynalign_operator.api.durations import after
from dynalign_operator.api.status import AlignmentRunStatus, Phase, StagePhase, StatusChanges
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import (
    GateView,
    Ruling,
    describe_decision,
    explain_wait_for_approval,
    look_at_gate,
    with_awaited,
    with_decision,
)
from dynalign_operator.planning.begun_rollout import keep_begun_rollout
from dynalign_operator.planning.blocked import blocked_status, invalid_status
from dynalign_operator.planning.budget import check_budget, is_held_by_budget, start_without_holds
from dynalign_operator.planning.bundles import build_bundle
from dynalign_operator.planning.claims import check_claims
from dynalign_operator.planning.deadlines import Limit, job_limit, run_deadline
from dynalign_operator.planning.errors import MissingArtifactError, PlanningError
from dynalign_operator.planning.gangs import gang_wakes
from dynalign_operator.planning.goodput import count_goodput
from dynalign_operator.planning.notifications import untold_condition, with_notifications, with_notified
from dynalign_operator.planning.observed import Children, JobObservation, JobPhase, Observed, Step, classify
from dynalign_operator.planning.plan import Event, EventType, JobBundle, Plan
from dynalign_operator.planning.reporting import plan_report, with_report_due
from dynalign_operator.planning.results import absorb_success, artifact_of, failure_message, named_reason, warnings_of
from dynalign_operator.planning.retries import Verdict, judge_failure, pause_before_retry
from dynalign_operator.planning.sequence import is_done, next_step
from dynalign_operator.planning.stage_status import next_attempt, outgrown, resume_failed_run, stage_status, with_stage
from dynalign_operator.planning.status import RunPosition, summarise
from dynalign_operator.planning.stored_run import BlockedRun, Blocker, InvalidRun
from dynalign_operator.planning.waiting import NO_POD_AFTER, UNKNOWN_AFTER, waiting_since

_LOOK_AGAIN: Final = timedelta(seconds=5)
"""While something is being deleted."""
_LOOK_AGAIN_WHEN_BLOCKED: Final = timedelta(minutes=1)


Observation = Observed | InvalidRun | BlockedRun
"""Input of the planner beside the time: a run with its Jobs, or a run that cannot be planned and why."""


def plan(observation: Observation, now: datetime, settings: BuildSettings) -> Plan:
    """Decide what to create and delete, and the new status. Never raises for anything that can be observed.

    A run that cannot be planned gets a status and nothing else: its Jobs stay as they are.
    """
    match observation:
        case InvalidRun():
            return Plan(status=invalid_status(observation, now))
        case BlockedRun():
            return Plan(status=blocked_status(observation, now))
        case Observed():
            kept = replace(observation, run=keep_begun_rollout(observation.run))
            return _plan_run(kept, now, settings)


def _plan_run(observed: Observed, now: datetime, settings: BuildSettings) -> Plan:
    run = observed.run
    status = run.status
    if status.observed_generation not in (None, run.metadata.generation):
        status = with_report_due(status)
        if status.phase is Phase.FAILED:
            status = resume_failed_run(status, next_step(run.spec, status))
    draft = _PlanBuilder(observed, now, settings, status)
    if status.phase is Phase.FAILED:
        draft.delete_active()
        return draft.finish(changed=False)
    if run.spec.suspend and not _is_finished(run, status):
        draft.suspend()
    else:
        draft.advance()
    return draft.finish(changed=True)


def retry(run: AlignmentRun) -> AlignmentRun:
    """The run as it must be stored for the planner to try again what has failed: the run itself, and its report."""
    status = with_report_due(run.status)
    if status.phase is Phase.FAILED:
        status = resume_failed_run(status, next_step(keep_begun_rollout(run).spec, status))
    return run if status is run.status else run.with_status(status)


def _is_finished(run: AlignmentRun, status: AlignmentRunStatus) -> bool:
    return status.phase is Phase.SUCCEEDED and next_step(run.spec, status) is None


@dataclass
class _PlanBuilder:
    """Collects the decisions of one call of `plan`."""

    observed: Observed
    now: datetime
    settings: BuildSettings
    status: AlignmentRunStatus
    create: list[JobBundle] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    wake_times: list[datetime] = field(default_factory=list)
    job: JobObservation | None = None
    blocker: Blocker | None = None
    gate: GateView | None = None
    """The gate at which the run waits for a person."""

    def advance(self) -> None:
        """Go through the steps until one has to wait."""
        self._begin()
        while (step := next_step(self.observed.run.spec, self.status)) is not None:
            if not self._decide_step(step):
                return
        self.delete_active()
        if self.status.phase is not Phase.SUCCEEDED:
            self._set(phase=Phase.SUCCEEDED, completion_time=self.now)
            self._event(reasons.RUN_SUCCEEDED, "The run is complete and its model is exported.")

    def suspend(self) -> None:
        """Stop what runs; what has just succeeded is kept."""
        while (step := next_step(self.observed.run.spec, self.status)) is not None:
            children = self._children(step)
            if children.succeeded is None or not self._record_success(children.succeeded):
                entry = stage_status(self.status, step)
                if entry.job and children.failed is None:
                    self.status = with_stage(self.status, step, next_attempt(entry))
                break
        self.delete_active()
        if self.observed.run.status.phase is not Phase.SUSPENDED:
            self._event(reasons.RUN_SUSPENDED, "spec.suspend is true: the Jobs are stopped.")
        self._set(phase=Phase.SUSPENDED, start_time=None, completion_time=None)

    def delete_active(self) -> None:
        """Delete every Job of the sequence that has not finished."""
        self._delete(job for job in self._jobs if job.phase is JobPhase.ACTIVE)

    def finish(self, *, changed: bool) -> Plan:
        """The plan; with the summary brought up to date unless nothing but deletions was decided, and the report."""
        run = self.observed.run
        status = count_goodput(self.observed, self.status, self.settings, self.delete, self.now)
        if changed:
            if status.phase is not Phase.SUSPENDED:
                status = with_awaited(status, self.gate, self.now)
            position = RunPosition(next_step(run.spec, status), self.job, self.blocker, self.gate)
            status = summarise(run, status, position, self.now)
            self._delete(outgrown(self._jobs, status))
        status = with_notified(run, status, self.now, are_sent=self.settings.sends_notifications)
        if (untold := untold_condition(status)) is not None and untold_condition(run.status) is None:
            self._event(untold.reason, untold.message, EventType.WARNING)
        report = plan_report(self.observed, status, self.now, self.settings)
        self._delete(report.delete)
        wake_times = [*self.wake_times, *report.wake_times]
        if self.delete:
            wake_times.append(self.now + _LOOK_AGAIN)
        return Plan(
            status=with_notifications(run, report.status, self.observed.notifications),
            create=(*self.create, *report.create),  # the queue and the quota see the run's own Job first
            delete=tuple(dict.fromkeys(self.delete)),
            events=(*self.events, *report.events),
            wake_at=min(wake_times, default=None),
        )

    @property
    def _jobs(self) -> tuple[JobObservation, ...]:
        """The Jobs of the sequence."""
        return tuple(job for job in self.observed.jobs if job.stage not in SIDE_STAGES)

    def _begin(self) -> None:
        """Start the clock of a run that is new, resumed, resume_failed_run or continued."""
        if next_step(self.observed.run.spec, self.status) is None:
            return
        if self.status.phase is Phase.SUSPENDED:
            self._event(reasons.RUN_RESUMED, "spec.suspend is false: the run goes on where it stopped.")
        if self.status.phase is not Phase.RUNNING or self.status.start_time is None:
            keep = self.status.start_time if self.status.phase in (Phase.PENDING, Phase.RUNNING) else None
            self._set(phase=Phase.PENDING, start_time=keep or self.now, completion_time=None)

    def _decide_step(self, step: Step) -> bool:
        """Decide about one step; True when the sequence may be looked at again at once."""
        children = self._children(step)
        if children.succeeded is not None and self._record_success(children.succeeded):
            return True
        start = start_without_holds(self.observed.run.status, self.status, self.now)
        deadline = run_deadline(self.observed.run.spec.policy, start)
        if self.now >= deadline.at:
            self._fail(step, Blocker(deadline.reason, deadline.message))
            return False
        self.wake_times.append(deadline.at)
        ended = children.failed or children.succeeded
        waiting = stage_status(self.status, step).phase is StagePhase.FAILED
        if ended is not None and not waiting and not self._count_failure(step, ended):
            return False
        if stage_status(self.status, step).phase is StagePhase.FAILED:
            return self._retry_when_due(step)
        self._delete(children.previous)
        if children.active is not None:
            self._enforce_limits(step, children.active)
        elif not children.previous:
            self._start(step)
        else:
            self.wake_times.append(self.now + _LOOK_AGAIN)
        return False

    def _children(self, step: Step) -> Children:
        """Classify, and catch up with a Job that is newer than the status."""
        entry = stage_status(self.status, step)
        children = classify(self._jobs, step, entry.attempt)
        if children.attempt > entry.attempt:
            self.status = with_stage(self.status, step, next_attempt(entry, children.attempt))
        return children

    def _record_success(self, job: JobObservation) -> bool:
        artifact: ArtifactRef | None = artifact_of(job)
        if artifact is None:
            return False
        self.status = absorb_success(self.status, job, artifact, self.now)
        self._set(phase=Phase.RUNNING)
        self._event(reasons.STAGE_SUCCEEDED, f"{job.step} succeeded in attempt {job.attempt}.")
        for warning in warnings_of(job):
            self._event(reasons.STAGE_WARNING, f"{job.step}: {warning}", EventType.WARNING)
        return True

    def _count_failure(self, step: Step, job: JobObservation) -> bool:
        """Record a failed attempt; False when the run has failed with it."""
        policy = self.observed.run.spec.policy
        entry = stage_status(self.status, step)
        message = failure_message(job)
        judgement = judge_failure(
            job.exit_code,
            job.reason,
            failures=entry.failures,
            retries=policy.retries,
            restarted_shards=job.phase is JobPhase.FAILED and step.stage in SHARDED_STAGES and len(job.results) > 1,
        )
        if judgement.verdict is Verdict.GIVE_UP:
            self._fail(step, Blocker(named_reason(job) or judgement.reason, message))
            return False
        free = judgement.verdict is Verdict.FREE
        counts = (entry.failures, entry.disruptions + 1) if free else (entry.failures + 1, 0)
        ended = min(job.completion_time or self.now, self.now)  # another clock's future must not put off a retry
        self._set_failed(step, message, at=ended, counts=counts)
        reason = reasons.STAGE_DISRUPTED if free else reasons.STAGE_FAILED
        self._event(reason, f"Attempt {job.attempt} of {step} will be repeated: {message}", EventType.WARNING)
        return True

    def _retry_when_due(self, step: Step) -> bool:
        entry = stage_status(self.status, step)
        if entry.failures > self.observed.run.spec.policy.retries:
            self._fail(step, Blocker(reasons.RETRIES_EXHAUSTED, entry.message))
            return False
        if entry.completion_time is not None:
            pause = max(map(pause_before_retry, (entry.failures, entry.disruptions)))
            due = after(entry.completion_time, pause)
            if self.now < due:
                self.wake_times.append(due)
                return False
        self.status = with_stage(self.status, step, next_attempt(entry))
        return True

    def _enforce_limits(self, step: Step, job: JobObservation) -> None:
        """Keep an active Job to its limits."""
        limit = job_limit(self.observed.run, job)
        if limit is not None and self.now >= limit.at:
            self._end_wait(step, job, limit)
            return
        if limit is not None:
            self.wake_times.append(limit.at)
        if job.missing_pods and self.now < (due := after(waiting_since(job), NO_POD_AFTER)):
            self.wake_times.append(due)
        self.wake_times += gang_wakes(self.observed.run, job, self.now)
        running = job.start_time is not None
        if running and not job.is_progress_known and job.seen_since:
            due = after(job.seen_since, UNKNOWN_AFTER)
            self.wake_times += [due] if self.now < due else []
        self.job = job
        entry = stage_status(self.status, step)
        entry = entry.evolve(
            phase=StagePhase.RUNNING if running else StagePhase.PENDING,
            job=job.name,
            part=(job.progress.part if job.progress else None) or entry.part,
            start_time=entry.start_time or job.start_time or job.creation_time,
        )
        self.status = with_stage(self.status, step, entry)
        if running:
            self._set(phase=Phase.RUNNING)

    def _end_wait(self, step: Step, job: JobObservation, limit: Limit) -> None:
        """Stop a Job that never started, which the user must correct; one that made no progress is a failed attempt."""
        entry = stage_status(self.status, step)
        exhausted = entry.failures >= self.observed.run.spec.policy.retries
        if limit.reason == reasons.PENDING_TIMEOUT or exhausted:
            self._fail(step, Blocker(limit.reason, limit.message))
            return
        self._delete([job])
        self._set_failed(step, limit.message, at=self.now, counts=(entry.failures + 1, 0))
        self._event(reasons.STAGE_FAILED, limit.message, EventType.WARNING)

    def _start(self, step: Step) -> None:
        entry = stage_status(self.status, step)
        try:
            check_claims(self.observed, step)
            bundle = build_bundle(self.observed, self.status, step, entry.attempt, self.settings)
            verified = self.settings.are_approvals_verified
            gate = look_at_gate(self.observed.run, self.status, step, self.now, verified=verified)
        except MissingArtifactError as error:
            self._fail(step, Blocker(error.reason, str(error)))
            return
        except PlanningError as error:
            self.blocker = Blocker(error.reason, str(error))
            self.wake_times.append(self.now + _LOOK_AGAIN_WHEN_BLOCKED)
            return
        if not self._pass_gate(step, gate) or not self._pass_budget(step):
            return
        self.create.append(bundle)
        started = entry.evolve(phase=StagePhase.PENDING, job=bundle.name, start_time=entry.start_time or self.now)
        self.status = with_stage(self.status, step, started)
        self._event(reasons.STAGE_STARTED, f"Job {bundle.name} runs {step}, attempt {entry.attempt}.")
        if is_done(self.status.fetch):
            self._set(phase=Phase.RUNNING)

    def _pass_gate(self, step: Step, view: GateView) -> bool:
        """Whether the stage may start now. A decision is stored first, and acted on by the next plan."""
        if view.ruling is Ruling.OPEN or view.awaited is None:
            return True
        self._set(phase=Phase.RUNNING)
        if view.decision is None:
            before = self.status.awaited_approval
            if before is None or before.since != view.awaited.since:
                self._event(reasons.AWAITING_APPROVAL, explain_wait_for_approval(view))
            self.gate, self.wake_times = view, []
            return False
        said = describe_decision(view.decision)
        self.status = with_decision(self.status, view.decision)
        if view.ruling is Ruling.REJECTED:
            self._fail(step, Blocker(reasons.REJECTED, said))
            return False
        self._event(reasons.APPROVED, said)
        self.wake_times.append(self.now)
        return False

    def _pass_budget(self, step: Step) -> bool:
        """Whether the budget lets the stage start. A run that was held gets a new clock, as one that was suspended."""
        counted = count_goodput(self.observed, self.status, self.settings, self.delete, self.now)
        blocker = check_budget(self.observed.run, counted, step, self.settings)
        was_held = is_held_by_budget(self.observed.run.status)
        if blocker is None:
            self._set(start_time=self.now if was_held else self.status.start_time)
            return True
        if not was_held:
            self._event(blocker.reason, blocker.message, EventType.WARNING)
        self._set(phase=Phase.RUNNING)
        self.blocker, self.wake_times = blocker, []
        return False

    def _fail(self, step: Step, blocker: Blocker) -> None:
        entry = stage_status(self.status, step)
        self._set_failed(step, blocker.message, at=self.now, counts=(entry.failures, entry.disruptions))
        self._set(phase=Phase.FAILED, completion_time=self.now)
        self.blocker = blocker
        self.delete_active()
        self._event(reasons.RUN_FAILED, f"{step}: {blocker.message}", EventType.WARNING)

    def _set_failed(self, step: Step, message: str, *, at: datetime, counts: tuple[int, int]) -> None:
        """Record a failure; `counts` are the failures that count, and the disruptions in a row."""
        failures, disruptions = counts
        failed = stage_status(self.status, step).evolve(
            phase=StagePhase.FAILED,
            message=message[:4096],
            completion_time=at,
            failures=failures,
            disruptions=disruptions,
        )
        self.status = with_stage(self.status, step, failed)

    def _delete(self, jobs: Iterable[JobObservation]) -> None:
        self.delete += [job.name for job in jobs if not job.deleting]

    def _set(self, **changes: Unpack[StatusChanges]) -> None:
        self.status = self.status.evolve(**changes)

    def _event(self, reason: str, message: str, kind: EventType = EventType.NORMAL) -> None:
        self.events.append(Event(kind, reason, message))
