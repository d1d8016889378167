"""Logs in a working folder: which file is of which attempt, and their lines as they are added."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.clusters.run_source import LogLine, LogOrigin, LogSelection
from dynalign_operator.planning.observed import Step

LOOK_EVERY_SECONDS: Final = 0.5
_NAME: Final = re.compile(
    rf"(?P<job>.+?(?:-i(?P<iteration>\d{{3,9}}))?-(?P<stage>{'|'.join(Stage)})-a(?P<attempt>\d{{1,9}}))"
    r"(?:-(?P<index>\d{1,9}))?"
)
"""Names of log files as `Workdir.log` and `job_name` make them."""


@dataclass(frozen=True)
class LogFile:
    """The log of one attempt of a stage, or of one of its shards."""

    path: Path
    origin: LogOrigin
    modified: float


def find_logs(workdir: Workdir, wanted: LogSelection) -> list[LogFile]:
    """The matching logs, the attempt that was written to last at the end, its shards in order."""
    found = [file for path in workdir.events.parent.glob("*.log") if (file := _read_name(path)) is not None]
    matching = [file for file in found if wanted.matches(file.origin.step, file.origin.attempt)]
    by_job: dict[str, list[LogFile]] = defaultdict(list)
    for file in matching:
        by_job[file.origin.job].append(file)
    jobs = sorted(by_job.values(), key=lambda files: max(file.modified for file in files))
    return [file for files in jobs for file in sorted(files, key=lambda file: file.origin.index)]


def latest_attempt(files: Sequence[LogFile]) -> list[LogFile]:
    """The logs of the attempt at the end of the list."""
    return [file for file in files if file.origin.job == files[-1].origin.job]


def _read_name(path: Path) -> LogFile | None:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    iteration, index = match["iteration"], match["index"]
    try:
        modified = path.stat().st_mtime
    except OSError:
        return None
    origin = LogOrigin(
        job=match["job"],
        step=Step(Stage(match["stage"]), None if iteration is None else int(iteration)),
        attempt=int(match["attempt"]),
        index=int(index or 0),
        has_others=index is not None,
    )
    return LogFile(path, origin, modified)


def last_lines(file: LogFile, tail: int | None) -> tuple[list[LogLine], int]:
    """The last lines of a log that are whole, or all; and the number of bytes that they end at."""
    data = file.path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    kept = lines if tail is None else lines[max(0, len(lines) - tail) :]
    return [LogLine(file.origin, line.decode(errors="replace")) for line in kept], len(whole)


def all_lines(file: LogFile, tail: int | None) -> list[LogLine]:
    """The last lines of a log, or all, and what stands after the last line end."""
    lines, position = last_lines(file, tail)
    rest = file.path.read_bytes()[position:]
    return [*lines, *([LogLine(file.origin, rest.decode(errors="replace"))] if rest else [])]


@dataclass
class LogFollower:
    """Reads the logs of an attempt and of those that come after it."""

    workdir: Workdir
    wanted: LogSelection
    tail: int | None
    _since: float | None = None
    """When the first log that is followed was written to last, as the first look found it."""
    _read: dict[Path, int] = field(default_factory=dict)
    """Log -> bytes that have been read."""

    async def follow(self, is_over: Callable[[], bool]) -> AsyncIterator[LogLine]:
        """Lines as they are added, until `is_over` says that nothing more will be."""
        while True:
            over = is_over()  # before the last reading, which then finds all there is
            for line in self._new_lines(flush=over):
                yield line
            if over:
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _new_lines(self, *, flush: bool) -> list[LogLine]:
        files = find_logs(self.workdir, self.wanted)
        if self._since is None and files:
            first = latest_attempt(files)
            self._since = min(file.modified for file in first)
            lines = []
            for file in first:
                found, self._read[file.path] = last_lines(file, self.tail)
                lines += found
            return [*lines, *self._new_lines(flush=flush)]
        since = self._since
        current = [f for f in files if since is not None and (f.path in self._read or f.modified > since)]
        return [line for file in current for line in self._added(file, flush=flush)]

    def _added(self, file: LogFile, *, flush: bool) -> list[LogLine]:
        position = self._read.get(file.path, 0)
        with file.path.open("rb") as opened:
            opened.seek(position)
            data = opened.read()
        whole = data if flush else data[: data.rfind(b"\n") + 1]
        self._read[file.path] = position + len(whole)
        return [LogLine(file.origin, line.decode(errors="replace")) for line in whole.splitlines()]
