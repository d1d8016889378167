"""Runs of working folders for a reader that looks at many of them all the time."""

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.clusters.run_source import lighten

_Version = tuple[int, int, int]
"""Inode, time of change and size of `run.json`, which is replaced whenever it changes."""


class RememberedRuns:
    """Reads `run.json` of a folder only where it has changed since."""

    def __init__(self) -> None:
        self._read: dict[Workdir, tuple[_Version, AlignmentRun | None]] = {}

    def read(self, workdir: Workdir) -> AlignmentRun | None:
        """The stored run with a light status; None where there is none. Raises WorkdirError."""
        version = _version_of(workdir)
        known = self._read.get(workdir)
        if version is not None and known is not None and known[0] == version:
            return known[1]
        self._read.pop(workdir, None)
        run = read_run(workdir)
        if run is not None:
            run = run.model_copy(update={"status": lighten(run.status)})
        if version is not None:
            self._read[workdir] = version, run
        return run


def _version_of(workdir: Workdir) -> _Version | None:
    """The version before it is read: one that changes meanwhile is read again the next time."""
    try:
        found = workdir.run_file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
