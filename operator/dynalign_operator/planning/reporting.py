"""The report beside the run: when its Job is created, retried and given up. Pure; the run does not depend on it.

The Job of a report lives beside that of a stage and is none of the run's steps: it has a limit of its own, and whatever
becomes of it, the other Jobs and the rest of the status are the same. One report is written at a time. A failed one is
retried once; then the next is due with the next iteration, or at the end of the run. That last one is retried for as
long as the installation says, for no other follows it, and what it writes to trackers would be missing there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dynalign_contract.layout import REPORT_FILE
from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.api.durations import after
from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase, ReportStatus, StagePhase
from dynalign_operator.api.v1alpha1 import AccessMode, ReportTime
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.job import SIDE_LIMIT
from dynalign_operator.planning import reasons
from dynalign_operator.planning.bundles import build_report_bundle
from dynalign_operator.planning.conditions import ConditionUpdate, set_condition
from dynalign_operator.planning.errors import PlanningError
from dynalign_operator.planning.observed import Children, JobObservation, JobPhase, Observed, Step, classify
from dynalign_operator.planning.plan import Event, EventType, JobBundle
from dynalign_operator.planning.results import artifact_of, failure_message, warnings_of
from dynalign_operator.planning.retries import Verdict, judge_failure, pause_before_retry
from dynalign_operator.planning.sequence import Occasion, next_side_step
from dynalign_operator.planning.waiting import explain_wait, waiting_since

RETRIES: Final = 1
MAX_DISRUPTIONS: Final = 5
"""Attempts at one report that may be preempted, evicted or stopped."""
_STEP: Final = Step(Stage.REPORT)
_PATIENT_AFTER: Final = 9
"""Failures after which the pause is an hour."""
_LONG_PAUSE: Final = timedelta(hours=1)
_LOOK_AGAIN: Final = timedelta(seconds=5)
_OPEN: Final = (StagePhase.PENDING, StagePhase.RUNNING)
_LONGEST_MESSAGE: Final = 4096
_MINUTES: Final = int(SIDE_LIMIT.total_seconds() // 60)


@dataclass
class ReportPlan:
    """What is decided about the report: additions to the plan of the run."""

    status: AlignmentRunStatus
    create: list[JobBundle] = field(default_factory=list)
    delete: list[JobObservation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    wake_times: list[datetime] = field(default_factory=list)


def plan_report(observed: Observed, status: AlignmentRunStatus, now: datetime, settings: BuildSettings) -> ReportPlan:
    """Decide about the report of a run whose other steps have been decided; `status` is the status after these."""
    jobs = [job for job in observed.jobs if job.stage in SIDE_STAGES]
    known = status.report
    entry, is_open = known or ReportStatus(), known is not None and known.phase in _OPEN
    children = classify(jobs, _STEP, entry.attempt if is_open or known is None else entry.attempt + 1)
    builder = _ReportBuilder(observed, jobs, now, settings, entry, ReportPlan(status), is_open=is_open)
    builder.decide(children)
    report = builder.entry if builder.is_open or builder.entry != entry else known
    builder.plan.status = builder.plan.status.evolve(report=report)
    return builder.plan


def with_report_due(status: AlignmentRunStatus) -> AlignmentRunStatus:
    """The status in which a report that has failed is due once more: the user may have removed the cause."""
    report = status.report
    if report is None or report.phase is not StagePhase.FAILED:
        return status
    return status.evolve(report=report.evolve(iteration=None, run_completion_time=None))


def shares_volume(observed: Observed) -> bool:
    """Whether the run's volume may be mounted by pods on several nodes, so that two Jobs do not wait for each other."""
    storage = observed.run.spec.storage
    if storage.existing_claim is None:
        return storage.access_mode is AccessMode.READ_WRITE_MANY
    claim = (observed.claims or {}).get(storage.existing_claim)
    return claim is None or AccessMode.READ_WRITE_MANY in claim.access_modes


@dataclass
class _ReportBuilder:
    """Collects the decisions about the report in one call of `plan`."""

    observed: Observed
    jobs: list[JobObservation]
    now: datetime
    settings: BuildSettings
    entry: ReportStatus
    plan: ReportPlan
    is_open: bool
    """Whether an attempt is due or under way."""

    def decide(self, children: Children) -> None:
        """Follow up the current attempt; begin the next report when it is over."""
        self._catch_up(children)
        self._delete(children.previous)
        if children.succeeded is not None:
            self._end(children.succeeded)
        elif children.failed is not None:
            self._fail(failure_message(children.failed), children.failed)
        if self._has_to_stop():
            self._stop()
            return
        self._begin_if_due(children.active)
        if not self.is_open:
            return
        active = [job for job in self.jobs if job.phase is JobPhase.ACTIVE]
        current = next((job for job in active if job.attempt == self.entry.attempt), None)
        if current is not None and not current.deleting:
            self._enforce_limit(current)
        elif active:
            self._wake(self.now + _LOOK_AGAIN)
        else:
            self._start_when_due()

    def _catch_up(self, children: Children) -> None:
        """Take over a Job that is newer than the status."""
        job = children.active or children.succeeded or children.failed
        if job is None or (self.is_open and job.attempt == self.entry.attempt):
            return
        occasion = next_side_step(self.observed.run.spec, self.plan.status)
        if not self.is_open and occasion is not None:
            self._begin(occasion, job.attempt)
        self.is_open = True
        self.entry = self.entry.evolve(
            phase=StagePhase.PENDING, attempt=job.attempt, job=job.name, start_time=job.creation_time
        )

    def _has_to_stop(self) -> bool:
        """Whether no Job of the report may live now."""
        spec, phase = self.observed.run.spec, self.plan.status.phase
        is_over = phase in (Phase.SUCCEEDED, Phase.FAILED)
        return spec.suspend or spec.report.when is ReportTime.NEVER or not (is_over or shares_volume(self.observed))

    def _stop(self) -> None:
        """Delete what runs; it starts again when it may, unless the run does without reports."""
        self._delete(job for job in self.jobs if job.phase is JobPhase.ACTIVE)
        if self.is_open and self.entry.job:
            self._expect_attempt(self.entry.attempt + 1)
        if self.is_open and self.observed.run.spec.report.when is ReportTime.NEVER:
            self.is_open = False
            self.entry = self.entry.evolve(phase=StagePhase.FAILED, message="spec.report.when is Never")

    def _begin_if_due(self, active: JobObservation | None) -> None:
        """Begin the report that is due. The end of the run does not wait for the report of an iteration."""
        occasion = next_side_step(self.observed.run.spec, self.plan.status.evolve(report=self.entry))
        if occasion is None:
            return
        is_waiting = active is None or active.start_time is None
        if self.is_open and self.entry.job and occasion.run_completion_time is None and not is_waiting:
            return
        if active is not None:
            self._delete([active])
        is_new = self.plan.status.report is None and not self.is_open
        self._begin(occasion, self.entry.attempt if is_new or not self._is_used() else self.entry.attempt + 1)

    def _is_used(self) -> bool:
        """Whether the number of the current attempt has been given to a Job."""
        return bool(self.entry.job) or not self.is_open

    def _begin(self, occasion: Occasion, attempt: int) -> None:
        self.is_open = True
        self.entry = ReportStatus(
            attempt=attempt,
            iteration=occasion.iteration,
            run_completion_time=occasion.run_completion_time,
            path=self.entry.path,
        )

    def _enforce_limit(self, job: JobObservation) -> None:
        """Follow an active Job; one that takes too long is a failed attempt. The time in a queue does not count."""
        phase = StagePhase.RUNNING if job.start_time is not None else StagePhase.PENDING
        self.entry = self.entry.evolve(phase=phase, job=job.name, start_time=self.entry.start_time or job.creation_time)
        if job.suspended:
            return
        due = after(job.seen_since or job.start_time or waiting_since(job), SIDE_LIMIT)
        if self.now < due:
            self._wake(due)
            return
        self._delete([job])
        if job.start_time is None:
            self._fail(
                f"Job {job.name} did not start within {_MINUTES} minutes. {explain_wait(self.observed.run, job)}"
            )
        else:
            self._fail(
                f"Job {job.name} had not ended after {_MINUTES} minutes and was stopped; its log tells what it did "
                "last. A report of a large run needs more CPU or memory: spec.stages.report.resources."
            )

    def _start_when_due(self) -> None:
        """Create the attempt's Job, again under the same name where it should be there and is not."""
        entry = self.entry
        if entry.job and entry.start_time is not None and self.now >= after(entry.start_time, SIDE_LIMIT):
            self._fail(
                f"Job {entry.job} is not there {_MINUTES} minutes after it was to be created: a quota, an admission "
                "webhook or missing rights refuse it, or somebody removed it. The run's events name the refusal."
            )
            return
        if any(job.attempt == entry.attempt for job in self.jobs):  # it has ended, and the status lags behind
            self._wake(self.now + _LOOK_AGAIN)
            return
        if entry.completion_time is not None:
            due = after(entry.completion_time, _pause_after(entry))
            if self.now < due:
                self._wake(due)
                return
        run = self.observed.run.with_status(self.plan.status)
        try:
            bundle = build_report_bundle(run, entry.iteration, entry.attempt, self.settings)
        except PlanningError as error:
            self._give_up(str(error))
            return
        self.plan.create.append(bundle)
        self.entry = entry.evolve(job=bundle.name, start_time=entry.start_time or self.now)
        self._wake(after(self.entry.start_time or self.now, SIDE_LIMIT))

    def _end(self, job: JobObservation) -> None:
        """Record a Job that has succeeded; those before it go, for no error is left that their logs would tell."""
        if artifact_of(job) is None:
            self._fail(failure_message(job), job)
            return
        self.is_open = False
        self.entry = self.entry.evolve(
            phase=StagePhase.SUCCEEDED,
            job=job.name,
            completion_time=job.completion_time or self.now,
            path=REPORT_FILE,
            message=" ".join(warnings_of(job))[:_LONGEST_MESSAGE],
        )
        self._delete(old for old in self.jobs if old.phase is not JobPhase.ACTIVE and old.attempt < job.attempt)
        missing = f" Not in it: {self.entry.message}" if self.entry.message else ""
        message = f"{REPORT_FILE} in the run's folder covers {describe_scope(self.entry)}.{missing}"
        self._tell(reasons.REPORTED, message, is_true=True)

    def _fail(self, message: str, job: JobObservation | None = None) -> None:
        """Count a failed attempt; the next one follows, or the report is given up. One failed Job stays for its log."""
        if job is not None:
            self._delete(old for old in self.jobs if old.phase is not JobPhase.ACTIVE and old.attempt < job.attempt)
        judgement = judge_failure(
            job.exit_code if job is not None else None,
            job.reason if job is not None else "",
            failures=self.entry.failures,
            retries=self._retries,
            restarted_shards=False,
        )
        is_free = judgement.verdict is Verdict.FREE
        disruptions, failures = self.entry.disruptions + is_free, self.entry.failures + (not is_free)
        ended = min(job.completion_time or self.now, self.now) if job is not None else self.now
        self.entry = self.entry.evolve(failures=failures, disruptions=disruptions, completion_time=ended)
        if judgement.verdict is Verdict.GIVE_UP or disruptions > MAX_DISRUPTIONS:
            self._give_up(message)
        else:
            self._expect_attempt(self.entry.attempt + 1, message)
            if failures > RETRIES:
                due = after(ended, _pause_after(self.entry))
                then = f"It is tried again at {due:%H:%M:%S} UTC, attempt {failures + 1} of {self._retries + 1}."
                self._tell_failure(message, then)

    @property
    def _retries(self) -> int:
        return RETRIES if self.entry.run_completion_time is None else self.settings.report_retries_at_end

    def _give_up(self, message: str) -> None:
        self.is_open = False
        self.entry = self.entry.evolve(
            phase=StagePhase.FAILED, completion_time=self.now, message=message[:_LONGEST_MESSAGE]
        )
        then = (
            "It is tried again after the next iteration."
            if self.entry.run_completion_time is None
            else "It is tried again when the run's specification changes, or `dynalign run FILE` is given again; "
            "`dynalign report FOLDER` writes the page, without trackers, from a copy of the run's folder."
        )
        self._tell_failure(message, then)

    def _expect_attempt(self, attempt: int, message: str = "") -> None:
        """Await the next attempt at the same report."""
        self.entry = self.entry.evolve(
            phase=StagePhase.PENDING, attempt=attempt, job="", start_time=None, message=message[:_LONGEST_MESSAGE]
        )

    def _tell_failure(self, message: str, then: str) -> None:
        text = f"The report of {describe_scope(self.entry)} failed: {message} The run itself goes on without it. {then}"
        self._tell(reasons.REPORT_FAILED, text, is_true=False)

    def _tell(self, reason: str, message: str, *, is_true: bool) -> None:
        update = ConditionUpdate(ConditionType.REPORTED, reason, message, is_true=is_true)
        status, generation = self.plan.status, self.observed.run.metadata.generation
        self.plan.status = status.evolve(conditions=set_condition(status.conditions, update, generation, self.now))
        self.plan.events.append(Event(EventType.NORMAL if is_true else EventType.WARNING, reason, message))

    def _delete(self, jobs: Iterable[JobObservation]) -> None:
        self.plan.delete += [job for job in jobs if not job.deleting]

    def _wake(self, at: datetime) -> None:
        self.plan.wake_times.append(at)


def _pause_after(entry: ReportStatus) -> timedelta:
    """Pause before the next attempt: as that of a stage, and an hour once a few of the longest have passed."""
    if entry.failures >= _PATIENT_AFTER:
        return _LONG_PAUSE
    return pause_before_retry(max(entry.failures, entry.disruptions))


def describe_scope(entry: ReportStatus) -> str:
    """What a report covers, in words."""
    if entry.run_completion_time is not None:
        return "the run to its end"
    return "the run so far" if entry.iteration is None else f"the iterations up to {entry.iteration}"
