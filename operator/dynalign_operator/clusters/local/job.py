"""One Job that is being run on this machine: its completions, one after another."""

import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from signal import SIGKILL, SIGTERM
from typing import Final

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.clusters.local.commands import (
    Placement,
    build_command,
    final_exit_codes,
    grace_seconds,
    restarts_per_index,
)
from dynalign_operator.clusters.local.preload import PreloadServer
from dynalign_operator.clusters.local.processes import Process, exit_code, free_port, signal_group, stop_process
from dynalign_operator.clusters.local.records import JobRecord, disrupted, write_record
from dynalign_operator.clusters.local.stage_port import read_metrics
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.manifests.labels import STAGE
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.planning.observed import JobPhase

_READ_EVERY_SECONDS: Final = 0.5

Clock = Callable[[], datetime]


class LocalJob:
    """Starts with its first completion; `poll` carries it on."""

    def __init__(self, job: KubernetesObject, placement: Placement, clock: Clock, server: PreloadServer) -> None:
        self._job, self._placement, self._clock, self._server = job, placement, clock, server
        self._index = 0
        self._restarts = 0
        self._read_at = 0.0
        self._kill_at: float | None = None
        self.live: LiveMetrics | None = None
        """The latest reading of the running completion."""
        self.last_progress_time: datetime | None = None
        now = clock()
        self.record = JobRecord(
            name=job["metadata"]["name"],
            labels=job["metadata"]["labels"],
            completions=job["spec"]["completions"],
            creation_time=now,
            start_time=now,
        )
        self._process = self._start()

    @property
    def is_side(self) -> bool:
        """Whether this runs beside the sequence of stages."""
        return self.record.labels[STAGE] in SIDE_STAGES

    @property
    def is_deleting(self) -> bool:
        """Whether the Job has been told to stop."""
        return self._kill_at is not None

    def poll(self) -> JobRecord:
        """See whether the running completion has ended, and start what comes next."""
        if self.record.phase is not JobPhase.ACTIVE:
            return self.record
        if self._process.poll() is None:
            self._kill_when_due()
            self._read_metrics()
            return self.record
        signal_group(self._process, SIGKILL)
        code = exit_code(self._process)
        self.record = self.record.with_pod_ended(self._clock())
        if self.is_deleting:
            self._store(disrupted(self.record, self._clock(), "deleted"))
        elif code == ExitCode.DONE and self._index + 1 < self.record.completions:
            self._index, self._restarts = self._index + 1, 0
            self._process = self._start()
        elif self._may_restart(code):
            self._restarts += 1
            self._process = self._start()
        else:
            self._end(code)
        return self.record

    def wait(self, seconds: float) -> None:
        """Wait for the running completion to end, `seconds` at most."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return

    def delete(self) -> None:
        """Send SIGTERM; `poll` sends SIGKILL when the grace is over."""
        if self.record.phase is JobPhase.ACTIVE and not self.is_deleting:
            self._kill_at = time.monotonic() + grace_seconds(self._job)
            signal_group(self._process, SIGTERM)

    def stop(self) -> None:
        """Stop the Job for good, waiting for its grace: dynalign itself is ending."""
        if self.record.phase is not JobPhase.ACTIVE:
            return
        code = stop_process(self._process, grace_seconds(self._job))
        self.record = self.record.with_pod_ended(self._clock())
        if code == ExitCode.DONE and self._index + 1 == self.record.completions and not self.is_deleting:
            self._end(code)
        else:
            self._store(disrupted(self.record, self._clock(), "dynalign was stopped"))

    def _start(self) -> Process:
        workdir, name = self._placement.workdir, self.record.name
        port = free_port()
        command = build_command(self._job, self._index, port, self._placement)
        workdir.job(name).mkdir(parents=True, exist_ok=True)
        workdir.result(name, self._index).unlink(missing_ok=True)
        self.record = self.record.with_pod(self._index, self._clock())
        write_record(workdir, self.record)
        self._port, self.live = port, None
        return self._server.start(
            command,
            folder=workdir.job(name),
            log=workdir.log(name, self._index, self.record.completions),
            is_apart=self.is_side or self.record.labels[STAGE] == Stage.FETCH,
        )

    def _may_restart(self, code: int) -> bool:
        """A SIGTERM from outside is left to the planner, like a disruption."""
        final = final_exit_codes(self._job) | {ExitCode.DONE, ExitCode.TERMINATED}
        return code not in final and self._restarts < restarts_per_index(self._job)

    def _kill_when_due(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            signal_group(self._process, SIGKILL)

    def _read_metrics(self) -> None:
        if time.monotonic() - self._read_at < _READ_EVERY_SECONDS:
            return
        self._read_at = time.monotonic()
        reading = read_metrics(self._port)
        if reading is not None and reading != self.live:
            self.live, self.last_progress_time = reading, self._clock()

    def _end(self, code: int) -> None:
        phase = JobPhase.SUCCEEDED if code == ExitCode.DONE else JobPhase.FAILED
        update = {"phase": phase, "exit_code": code, "completion_time": self._clock()}
        self._store(self.record.model_copy(update=update))

    def _store(self, record: JobRecord) -> None:
        self.record = record
        write_record(self._placement.workdir, record)
