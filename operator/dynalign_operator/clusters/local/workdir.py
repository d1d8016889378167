"""A run's working folder on this machine: its paths, its lock, and the run object in `run.json`."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dynalign_contract.files import write_bytes
from dynalign_operator.api.rules import TRANSITIONS
from dynalign_operator.api.rules.checking import broken_transitions
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.stored import read_stored
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.errors import ChangedFieldError, ClusterError, LockedError, WorkdirError
from dynalign_operator.runfile.problems import name_field

_LOCKS: Final = Path("/proc/locks")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Workdir:
    """Absolute paths. The folder itself is what `/volume/<run>` is in a pod."""

    root: Path

    @property
    def run_file(self) -> Path:
        """The run object with its status."""
        return self.root / "run.json"

    @property
    def lock_file(self) -> Path:
        """Held by the process that works here, whose pid it contains."""
        return self.root / ".lock"

    @property
    def approval(self) -> Path:
        """The latest decision of a person about the run."""
        return self.root / ".approval.json"

    @property
    def jobs(self) -> Path:
        """One folder a Job."""
        return self.root / ".jobs"

    @property
    def events(self) -> Path:
        """What happened, a line each."""
        return self.root / "logs" / "events.log"

    def job(self, name: str) -> Path:
        """What a pod would have mounted, and the Job's record."""
        return self.jobs / name

    def result(self, name: str, index: int) -> Path:
        """The termination message of a completion."""
        return self.job(name) / f"result-{index}.json"

    def log(self, name: str, index: int, completions: int) -> Path:
        """Output of one attempt, or of one of its shards."""
        return self.root / "logs" / (f"{name}.log" if completions == 1 else f"{name}-{index}.log")


@contextmanager
def locked(workdir: Workdir) -> Iterator[None]:
    """Hold the folder's lock. Raises LockedError naming the process that has it; the lock ends with its holder."""
    with explained(workdir.root):
        workdir.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"another dynalign (process {holder}) works in {workdir.root}. Wait until it has ended, stop it with "
                "Ctrl-C, or choose another --workdir."
            ) from None
        with explained(workdir.root):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(workdir: Workdir) -> bool:
    """Whether a process holds the folder's lock, found without taking it: the kernel lists every lock."""
    try:
        inode = workdir.lock_file.stat().st_ino
        held = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return False
    return any("FLOCK" in words and any(word.endswith(f":{inode}") for word in words) for words in held)


def read_run(workdir: Workdir) -> AlignmentRun | None:
    """The stored run, without fields that this version does not know; None where there is none.

    Raises WorkdirError when it cannot be read.
    """
    try:
        return read_stored(AlignmentRun, json.loads(workdir.run_file.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(
            f"{workdir.run_file} is not a run that this version of dynalign can read ({_first_error(error)}). Restore "
            "it, read it with the version that wrote it, or choose another --workdir."
        ) from error


def _first_error(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{name_field(first['loc'])}: {first['msg']}".removeprefix(": ")


def write_run(workdir: Workdir, run: AlignmentRun) -> None:
    """Store the run: the file is whole at every moment. Raises ClusterError."""
    with explained(workdir.root):
        write_bytes(workdir.run_file, run.to_json(indent=2).encode())


def merge_run(workdir: Workdir, wanted: AlignmentRun) -> AlignmentRun:
    """The run to go on with: the wanted spec with the stored status, as an API server would merge them.

    Raises ChangedFieldError for a change that is not allowed, WorkdirError for a folder that belongs to something else.
    """
    stored = read_run(workdir)
    if stored is None:
        _check_empty(workdir)
        metadata = wanted.metadata.model_copy(update={"generation": 1, "resource_version": "1"})
        return wanted.model_copy(update={"metadata": metadata, "status": AlignmentRunStatus()})
    if stored.metadata.name != wanted.metadata.name:
        raise ChangedFieldError(
            f"{workdir.root} holds the run {stored.metadata.name}, not {wanted.metadata.name}. "
            "Choose another --workdir, or change metadata.name back."
        )
    _check_transitions(stored, wanted, workdir)
    if stored.spec == wanted.spec:
        return stored
    return next_version(
        stored.model_copy(
            update={
                "spec": wanted.spec,
                "metadata": stored.metadata.model_copy(update={"generation": stored.metadata.generation + 1}),
            }
        )
    )


def next_version(run: AlignmentRun) -> AlignmentRun:
    """The run with its next resourceVersion."""
    version = str(int(run.metadata.resource_version or "0") + 1)
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"resource_version": version})})


def _check_transitions(stored: AlignmentRun, wanted: AlignmentRun, workdir: Workdir) -> None:
    """Refuse what an API server would refuse of an update."""
    for path, transition in broken_transitions(stored, wanted, TRANSITIONS):
        raise ChangedFieldError(
            f"{name_field(path)} {transition.message}. The run in {workdir.root} has begun with another value: write "
            "that again, or choose another --workdir."
        )


def _check_empty(workdir: Workdir) -> None:
    """A stage clears the folder that it writes to, so a run never begins among the files of somebody else."""
    with explained(workdir.root):
        strangers = sorted(path.name for path in workdir.root.iterdir() if not path.name.startswith("."))
    if strangers:
        raise WorkdirError(
            f"{workdir.root} holds no run.json but other files ({strangers[0]}, for example), which a run could "
            "overwrite. Choose an empty or a new folder with --workdir."
        )


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ClusterError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ClusterError(
                f"the disk below {root} is full ({error.strerror}). Free some space and run the same command again: "
                "it goes on where it stopped."
            ) from error
        raise WorkdirError(
            f"{error.filename or root} cannot be used ({error.strerror}). Check its permissions, or choose another "
            "--workdir."
        ) from error
