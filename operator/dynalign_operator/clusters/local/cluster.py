"""LocalCluster: runs the Jobs that a real cluster would, as subprocesses of this machine, in one working folder."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from dynalign_contract.caches import CACHE_VARIABLE, cache_folder, check_writable
from dynalign_contract.errors import BadConfigError
from dynalign_contract.files import write_bytes
from dynalign_operator.api.approvals import APPROVAL_ANNOTATION
from dynalign_operator.api.rollouts import without_fused_rollout
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.clusters.errors import ConflictError, UnsupportedJobError, UnusableCacheError
from dynalign_operator.clusters.local.approving import read_decision
from dynalign_operator.clusters.local.commands import Placement
from dynalign_operator.clusters.local.job import Clock, LocalJob
from dynalign_operator.clusters.local.preload import PreloadServer
from dynalign_operator.clusters.local.processes import end_orphans
from dynalign_operator.clusters.local.records import (
    JobRecord,
    disrupted,
    observe_record,
    read_records,
    remove_record,
    write_record,
)
from dynalign_operator.clusters.local.workdir import Workdir, explained, locked, merge_run, next_version, write_run
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.planning.observed import JobObservation, JobPhase, Observed
from dynalign_operator.planning.plan import Event, JobBundle
from dynalign_operator.planning.stored_run import StoredRun

ORPHAN_GRACE_SECONDS = 30.0

ConfigMaps = Mapping[str, Mapping[str, str]]
"""Name -> key -> text."""


def system_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def default_cache() -> Path:
    """Where models and compiled kernels are kept between runs: `DYNALIGN_CACHE`, or `~/.cache/dynalign`.

    Raises UnusableCacheError when it cannot be written.
    """
    try:
        folder = cache_folder(os.environ).absolute()
        check_writable(folder, CACHE_VARIABLE if os.environ.get(CACHE_VARIABLE) else "HOME")
    except (BadConfigError, OSError) as error:
        raise UnusableCacheError(str(error)) from error
    return folder


@contextmanager
def open_local_cluster(
    folder: Path,
    run: AlignmentRun,
    config_maps: ConfigMaps = MappingProxyType({}),
    *,
    cache: Path | None = None,
    clock: Clock = system_clock,
) -> Iterator["LocalCluster"]:
    """Take over a working folder: lock it, end what a killed dynalign left running, and go on with its run.

    `run` is what the user wants now; the stored status is kept. When the block ends, however it does, the running stage
    gets SIGTERM and its grace. Raises ClusterError: LockedError, WorkdirError, ChangedFieldError, UnsupportedJobError,
    UnusableCacheError.
    """
    if run.spec.training.nodes > 1:
        raise UnsupportedJobError(
            f"spec.training.nodes is {run.spec.training.nodes}, and this is one machine. Set it to 1 and raise "
            "spec.training.gpusPerNode instead, or apply the run to a cluster."
        )
    cache = cache or default_cache()
    workdir = Workdir(folder.absolute())
    with locked(workdir):
        merged = merge_run(workdir, run)
        end_orphans(workdir.root, ORPHAN_GRACE_SECONDS)
        with explained(workdir.root):
            write_run(workdir, merged)
            records = _records_of_the_dead(workdir, clock)
        placement = Placement(workdir, cache, dict(os.environ))
        cluster = LocalCluster(merged, config_maps, placement, records, clock)
        try:
            yield cluster
        finally:
            cluster.stop()


class LocalCluster:
    """A Cluster with one run. Made by `open_local_cluster`; nothing happens between calls, so call `observe` often."""

    def __init__(
        self,
        run: AlignmentRun,
        config_maps: ConfigMaps,
        placement: Placement,
        records: Mapping[str, JobRecord],
        clock: Clock,
    ) -> None:
        self._run, self._config_maps, self._placement, self._clock = run, config_maps, placement, clock
        self._workdir = placement.workdir
        self.deliveries = Deliveries()
        """Notifications that are over and not in the status yet."""
        self._jobs: dict[str, LocalJob] = {}
        self._server = PreloadServer()
        self._ended = {name: observe_record(self._workdir, record) for name, record in records.items()}

    @property
    def run(self) -> AlignmentRun:
        """The run as it is stored."""
        return self._run

    @property
    def key(self) -> RunKey:
        """The key of the only run."""
        return RunKey(self._run.metadata.namespace, self._run.metadata.name)

    @property
    def live(self) -> LiveMetrics | None:
        """What the running stage of the sequence says of itself; None while none runs or it has said nothing yet."""
        return next((job.live for job in self._jobs.values() if not job.is_side), None)

    def log_path(self, job: str, index: int = 0, completions: int = 1) -> Path:
        """The log of one attempt, or of one of its shards."""
        return self._workdir.log(job, index, completions)

    async def observe(self, key: RunKey) -> Observed | None:
        """The run and its Jobs, after having carried these on."""
        if key != self.key:
            return None
        with explained(self._workdir.root):
            running = [self._poll(job) for job in list(self._jobs.values())]
            decision = read_decision(self._workdir)
        jobs = tuple(job for job in (*self._ended.values(), *running) if job is not None)
        run = self._run if decision is None else self._run.with_annotation(APPROVAL_ANNOTATION, decision)
        if run.spec.generation.shards > 1:  # they run one after the other here, and those of a rollout wait for others
            run = without_fused_rollout(run)
        over = self.deliveries.take(key, run.status.notifications)
        return Observed(run, jobs, self._config_maps, notifications=over)

    async def create(self, bundle: JobBundle) -> None:
        """Start a Job. The volume is the working folder, so there is no claim to create."""
        if bundle.name in self._jobs or bundle.name in self._ended:
            return
        with explained(self._workdir.root):
            for name, text in bundle.config_map["data"].items():
                write_bytes(self._workdir.job(bundle.name) / name, text.encode())
            self._jobs[bundle.name] = LocalJob(bundle.job, self._placement, self._clock, self._server)

    async def delete(self, key: RunKey, job: str) -> None:
        """Stop a Job; it is observed as `deleting` until it has ended."""
        if key != self.key:
            return
        if job in self._jobs:
            self._jobs[job].delete()
        elif self._ended.pop(job, None) is not None:
            remove_record(self._workdir, job)

    async def write_status(self, run: AlignmentRun | StoredRun, status: AlignmentRunStatus) -> None:
        """Store the status. Raises ConflictError when `run` is not the stored version."""
        version = run.resource_version if isinstance(run, StoredRun) else run.metadata.resource_version
        if version != self._run.metadata.resource_version:
            raise ConflictError(f"the run {self.key.name} has changed since it was observed")
        changed = next_version(self._run.with_status(status))
        write_run(self._workdir, changed)
        self._run = changed

    async def publish(self, run: AlignmentRun, events: Sequence[Event]) -> None:  # noqa: ARG002 - there is one run only
        """Append to `logs/events.log`."""
        if not events:
            return
        now = self._clock().isoformat(timespec="seconds")
        with explained(self._workdir.root):
            self._workdir.events.parent.mkdir(parents=True, exist_ok=True)
            with self._workdir.events.open("a", encoding="utf-8") as file:
                file.writelines(f"{now} {event.type} {event.reason} {event.message}\n" for event in events)

    def wait(self, seconds: float) -> None:
        """Return when a process has ended, at the latest after `seconds`."""
        job = next(iter(self._jobs.values()), None)
        if job is None:
            time.sleep(max(0.0, seconds))
        else:
            job.wait(max(0.0, seconds))

    def stop(self) -> None:
        """Stop what runs, with grace; it counts as disrupted, so that the next dynalign starts it again for free."""
        for job in self._jobs.values():
            job.stop()
        self._jobs.clear()
        self._server.close()

    def _poll(self, job: LocalJob) -> JobObservation | None:
        """The Job while it runs; None once it has moved to those that have ended, or is gone."""
        record = job.poll()
        if record.phase is JobPhase.ACTIVE:
            return observe_record(
                self._workdir,
                record,
                live=job.live,
                last_progress_time=job.last_progress_time,
                deleting=job.is_deleting,
            )
        del self._jobs[record.name]
        if job.is_deleting:
            remove_record(self._workdir, record.name)
        else:
            self._ended[record.name] = observe_record(self._workdir, record)
        return None


def _records_of_the_dead(workdir: Workdir, clock: Clock) -> dict[str, JobRecord]:
    """The records of this folder; what was running has lost its dynalign, and is disrupted."""
    records = read_records(workdir)
    for name, record in records.items():
        if record.phase is JobPhase.ACTIVE:
            seen = _last_line(workdir, record)
            last_seen = record if seen is None else record.with_pod_ended(seen)
            records[name] = disrupted(last_seen, clock(), "the dynalign that ran it was killed")
            write_record(workdir, records[name])
    return records


def _last_line(workdir: Workdir, record: JobRecord) -> datetime | None:
    """When the latest process of a Job wrote to its log last, which is all that is known of its end."""
    if not record.pods:
        return None
    latest = record.pods[-1]
    try:
        written = workdir.log(record.name, latest.index, record.completions).stat().st_mtime
    except OSError:
        return None
    return max(latest.start_time, datetime.fromtimestamp(written, UTC))
