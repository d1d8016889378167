"""Runs in working folders of this machine, as `dynalign run` leaves them."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dynalign_operator.api.approvals import Decision
from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.errors import ClusterError, WorkdirError
from dynalign_operator.clusters.local.approving import user_name, write_decision
from dynalign_operator.clusters.local.log_files import LogFollower, all_lines, find_logs, latest_attempt
from dynalign_operator.clusters.local.records import observe_record, read_records
from dynalign_operator.clusters.local.workdir import Workdir, explained, is_locked, read_run
from dynalign_operator.clusters.run_source import (
    ListedRun,
    LogLine,
    LogNotFoundError,
    LogSelection,
    RunEvent,
    RunList,
    RunNotFoundError,
    RunPlace,
    RunSnapshot,
    write_request,
)
from dynalign_operator.planning.observed import JobPhase
from dynalign_operator.planning.plan import EventType

_EVENT: Final = re.compile(r"(?P<time>\S+) (?P<type>Normal|Warning) (?P<reason>[A-Za-z]+) (?P<message>.*)")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED)


class LocalRunSource:
    """A RunSource of working folders, each under the name that the user gives it."""

    def __init__(self, folders: Mapping[str, Path], read: Callable[[Workdir], AlignmentRun | None] = read_run) -> None:
        """`read` reads the run of a folder, for a caller that looks often and remembers what it has read."""
        self._folders = {name: Workdir(folder) for name, folder in folders.items()}
        self._read = read

    async def list_runs(self) -> RunList:
        """Every run of the folders that can be read; the notes say what is wrong with the others."""
        runs, notes = [], []
        for folder, workdir in self._folders.items():
            try:
                run = self._read(workdir)
            except ClusterError as error:
                notes.append(str(error))
                continue
            if run is not None:
                name, group = run.metadata.name, str(workdir.root.parent)
                driven = is_locked(workdir)
                runs.append(ListedRun(name, group, run.status, run, is_cluster=False, is_driven=driven, folder=folder))
        return RunList(tuple(runs), tuple(notes))

    async def get(self, name: str) -> RunSnapshot:
        """The run of a folder and the Jobs that it remembers. Raises RunNotFoundError, WorkdirError."""
        workdir = self._folders[name]
        run = self._read(workdir)
        if run is None:
            raise RunNotFoundError(f"{workdir.root} holds no run (no run.json); start one with `dynalign run FILE`.")
        notes: list[str] = []
        try:
            records = read_records(workdir)
        except WorkdirError as error:
            records = {}
            notes.append(str(error))
        observed = (observe_record(workdir, record) for record in records.values())
        folder = str(workdir.root)
        return RunSnapshot(
            run=run,
            place=RunPlace(title=folder, files=folder, arguments=folder, is_cluster=False),
            jobs=tuple(job for job in observed if job is not None),
            is_driven=is_locked(workdir),
            notes=tuple(notes),
        )

    async def events(self, snapshot: RunSnapshot) -> tuple[RunEvent, ...]:
        """What `logs/events.log` holds."""
        path = Workdir(Path(snapshot.place.files)).events
        with explained(path.parent):
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return _parse_events(text)

    async def decide(self, snapshot: RunSnapshot, decision: Decision, reason: str) -> str:
        """Leave the decision in the working folder, for the process that works there or the next one."""
        name = user_name()
        text = write_request(snapshot.run.status.awaited_approval, name, decision, reason)
        write_decision(Workdir(Path(snapshot.place.files)), text)
        return name

    async def logs(
        self, name: str, wanted: LogSelection, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[LogLine]:
        """Lines of the log files. Raises LogNotFoundError where there is none."""
        workdir = self._folders[name]
        await self.get(name)
        files = find_logs(workdir, wanted)
        if not files and not (follow and is_locked(workdir)):
            have = ", ".join(dict.fromkeys(file.origin.job for file in find_logs(workdir, LogSelection()))) or "none"
            raise LogNotFoundError(f"{workdir.root} has no such log; it has {have}.")
        if follow:
            async for line in LogFollower(workdir, wanted, tail).follow(lambda: _is_over(workdir, wanted)):
                yield line
            return
        for file in latest_attempt(files):
            with explained(file.path):
                lines = all_lines(file, tail)
            for line in lines:
                yield line


def _is_over(workdir: Workdir, wanted: LogSelection) -> bool:
    """Whether nothing will be written any more: the run, or the attempt that is asked for, has ended."""
    if not is_locked(workdir):
        return True
    run = read_run(workdir)
    if run is None or run.status.phase in _ENDED:
        return True
    if wanted.attempt is None:
        return False
    jobs = [
        job
        for record in read_records(workdir).values()
        if (job := observe_record(workdir, record)) is not None and wanted.matches(job.step, job.attempt)
    ]
    return bool(jobs) and all(job.phase is not JobPhase.ACTIVE for job in jobs)


def _parse_events(text: str) -> tuple[RunEvent, ...]:
    """The events of a log; lines that begin no event continue the message before them."""
    events: list[RunEvent] = []
    for line in text.splitlines():
        match = _EVENT.fullmatch(line)
        if match is not None:
            events.append(
                RunEvent(_parse_time(match["time"]), EventType(match["type"]), match["reason"], match["message"])
            )
        elif events:
            last = events.pop()
            events.append(RunEvent(last.time, last.type, last.reason, f"{last.message}\n{line}"))
    return tuple(events)


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
