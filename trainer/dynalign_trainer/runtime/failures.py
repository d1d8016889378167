"""Turns whatever a stage raises into an error that a person, and the planner, can act on."""

import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.errors import (
    BadConfigError,
    MemoryFullError,
    RepeatedError,
    StageError,
    StorageError,
    VolumeFullError,
)
from dynalign_contract.files import write_bytes
from dynalign_contract.stages import Stage

LAST_ERROR: Final = ".last-error"
"""In the stage's folder: fingerprint of the error with which the last attempt ended; gone when the stage is done."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_PASSING: Final = frozenset(
    {errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EAGAIN}
)
"""What a network file system that is away for a while says."""
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})
_LEAST_SPACE: Final = 2**20
"""Bytes; with fewer the volume is full for every file that is worth writing."""
_WRITTEN_NUMBER: Final = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
"""How Python and Rust write an errno into the text of an error that carries it no more."""
_MEMORY_TYPES: Final = frozenset({"OutOfMemoryError", "MemoryError"})
_MEMORY_TEXT: Final = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc", re.IGNORECASE)
_HARDWARE: Final = re.compile(
    r"CUDA error|NCCL|gloo|ECC|connection (?:reset|closed|refused)|broken pipe|peer", re.IGNORECASE
)
"""Errors of devices and links, which may be gone with the next node."""
_OWN: Final = re.compile(r"/dynalign_(?:trainer|contract)/")
_LIFE: Final = "dynalign_trainer/runtime/lifecycle.py"
"""Part of every traceback, and no place where anything goes wrong."""
_LONGEST_TEXT: Final = 1200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class Attempt:
    """What was being done when something failed."""

    config: StageConfig
    root: Path
    """The run's folder on the volume."""
    index: int = 0
    """The shard, or the rank in a gang."""
    in_rollout: bool = False
    """Whether a rollout's pod does this, and not one of the stage alone."""
    is_helping: bool = False
    """Whether the pod only helps the one that does the stage, in whose folder it writes nothing."""

    @property
    def pods(self) -> Stage:
        """The stage by whose name the pods are labelled and configured."""
        return Stage.ROLLOUT if self.in_rollout else self.config.stage

    @property
    def doing(self) -> str:
        """For people: `generate of iteration 3, shard 1 of 4`."""
        config = self.config
        words = str(config.stage) if config.iteration is None else f"{config.stage} of iteration {config.iteration}"
        if self.is_helping:
            return f"help with {words}"
        if config.shards > 1:
            return f"{words}, shard {self.index} of {config.shards}"
        return f"{words}, node {self.index} of {config.nodes}" if config.nodes > 1 else words

    @property
    def memory(self) -> Path | None:
        """The file that keeps the last error's fingerprint; None for a node or a helper that writes nothing."""
        if self.is_helping or (self.config.nodes > 1 and self.index > 0):
            return None
        if self.config.is_joined:  # its share may be whole by now
            return self.root / self.config.shares / f"{LAST_ERROR}-{self.index}"
        return self.root / self.config.shard(self.index if self.config.shards > 1 else 0) / LAST_ERROR


def explain_failure(error: BaseException, attempt: Attempt) -> StageError:
    """The error that a stage ends with.

    What the stage knows stays as it is. Errors of the operating system and of memory get a name and a remedy. Whatever
    else is told with what was being done, its type and text, its place and where the log is; from the same place with
    the same inputs twice in a row, it becomes a RepeatedError.
    """
    if isinstance(error, StageError) and not error.place:
        return error
    named = _of_system(error, attempt) or _of_memory(error, attempt)
    if named is not None:
        return named
    found = error if isinstance(error, StageError) else _unforeseen(error, attempt)
    return _if_repeated(found, attempt) if found.place else found


def out_of_memory(what: str, stage: Stage, pods: Stage | None = None) -> MemoryFullError:
    """The error for memory that was too small, with what to lower in this stage; `what` is the library's own words.

    `pods`: the stage that configures the pods, where it is another one.
    """
    lower = (
        "Lower spec.training.tokensPerMicroBatch (backend TRL: microBatch), spec.training.lora.rank or "
        "spec.generation.maxTokens, or raise spec.training.zeroStage or gpusPerNode; "
        "with method: Full, optimizerOffload: CPU leaves the GPUs with weights and activations"
        if stage is Stage.TRAIN
        else "Lower spec.engine.maxLength or memoryGib, or raise spec.engine.tensorParallel"
    )
    return MemoryFullError(
        f"the memory is too small for the {stage} stage ({_plain(what)[:400]}). {lower}; where it is the machine's and "
        f"not a GPU's, raise the memory in spec.stages.{pods or stage}.resources."
    )


def _of_system(error: BaseException, attempt: Attempt) -> StageError | None:
    """The error for what the operating system said, in the error itself or in one that it came from."""
    if _is_full(attempt.root):
        return _full(_plain(str(error)), "", attempt)
    for link in _chain(error):
        number = _number_of(link)
        path = getattr(link, "filename", None)
        where = f"{path}" if isinstance(path, str | os.PathLike) else ""
        said = _plain(str(link))
        if number in _FULL:
            return _full(said, where, attempt)
        if number in _FORBIDDEN and isinstance(link, OSError):
            return _forbidden(said, where, attempt)
        if number in _PASSING:
            return StorageError(
                f"{attempt.doing}: the storage did not answer as it should ({said}). It is tried again; if that goes "
                f"on, look at the volume behind {where or attempt.root} and at its server."
            )
        if number in _TOO_MANY:
            return StorageError(
                f"{attempt.doing}: too many files are open at a time ({said}). Raise the limit (ulimit -n)."
            )
    return None


def _of_memory(error: BaseException, attempt: Attempt) -> StageError | None:
    for link in _chain(error):
        if type(link).__name__ in _MEMORY_TYPES or _MEMORY_TEXT.search(str(link)):
            return out_of_memory(f"{type(link).__name__}: {link}", attempt.config.stage, attempt.pods)
    return None


def _is_full(folder: Path) -> bool:
    """Whether the volume has no space: many libraries say something else about a file that they could not finish."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_SPACE
    except OSError:
        return False


def _full(said: str, where: str, attempt: Attempt) -> VolumeFullError:
    if where and not Path(where).is_relative_to(attempt.root):
        return VolumeFullError(
            f"the file system that holds {where} has no space left ({said}). It is a cache or a temporary file: free "
            "space there, or set DYNALIGN_CACHE or TMPDIR to a folder with more."
        )
    return VolumeFullError(
        f"the volume below {attempt.root} has no space left ({said}). Free space or enlarge spec.storage.size; "
        "the next attempt goes on from the finished parts."
    )


def _forbidden(said: str, where: str, attempt: Attempt) -> BadConfigError:
    if where and not Path(where).is_relative_to(attempt.root):
        return BadConfigError(
            f"{attempt.doing}: {where} cannot be used ({said}). Caches follow DYNALIGN_CACHE and HOME: set them to "
            "folders that can be written; an input must be readable for this user."
        )
    return BadConfigError(
        f"{attempt.doing}: the run's folder {attempt.root} cannot be written by the user {os.getuid()} ({said}). Give "
        "this user the right to write there: the owner of the folder, or the volume's group (fsGroup)."
    )


class _UnforeseenError(StageError):
    """An error that no code expected; retriable once."""


def _unforeseen(error: BaseException, attempt: Attempt) -> StageError:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if _OWN.search(f.filename) and not f.filename.endswith(_LIFE)] or list(frames)
    near = own[-1] if own else None
    text = _plain(str(error)) or (f"at `{near.line}`" if near is not None and near.line else "without a text")
    cause = next((link for link in list(_chain(error))[1:] if str(link) and str(link) not in str(error)), None)
    because = f"; it came from {type(cause).__name__}: {_plain(str(cause))[:300]}" if cause is not None else ""
    place = f" ({_short(near.filename)}:{near.lineno} in {near.name})" if near is not None else ""
    found = _UnforeseenError(
        f"{attempt.doing} failed with {type(error).__name__}: {text[:_LONGEST_TEXT]}{because}{place}. "
        f"The traceback is in {log_of(attempt.config, attempt.pods)}."
    )
    found.reason = type(error).__name__
    if not _HARDWARE.search(str(error)) and not isinstance(error, ConnectionError | TimeoutError):
        ends = [*own[-1:], *list(frames)[-1:]]
        found.place = " ".join([type(error).__name__, *(f"{_short(f.filename)}:{f.lineno}" for f in ends)])
    return found


def _if_repeated(error: StageError, attempt: Attempt) -> StageError:
    fingerprint = hashlib.sha256(f"{error.place} {attempt.config.digest}".encode()).hexdigest()[:16]
    memory = attempt.memory
    try:
        if memory is None or not memory.parent.is_dir():
            return error
        if memory.is_file() and memory.read_text() == fingerprint:
            return RepeatedError(
                f"{error} The attempt before had the same inputs and ended with the same error in the same place, so "
                "there is no other one: change what it names, or report it with the log."
            )
        write_bytes(memory, fingerprint.encode())
    except OSError:  # what cannot be remembered is tried as often as everything else
        return error
    return error


def log_of(config: StageConfig, pods: Stage | None = None) -> str:
    """Where this process's log is: a file, or what shows it in a cluster.

    `pods`: the stage by whose name the pods are labelled, where it is another one.
    """
    try:
        target = os.fstat(2)
        if stat.S_ISREG(target.st_mode):
            return f"the log {Path('/proc/self/fd/2').readlink()}"
    except OSError:
        pass
    selector = f"{RUN_LABEL}={config.run},{STAGE_LABEL}={pods or config.stage}"
    return f"the log of {socket.gethostname()} (`kubectl logs -l {selector}`)"


RUN_LABEL: Final = "dynalign.io/run"
STAGE_LABEL: Final = "dynalign.io/stage"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, nearest first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _number_of(error: BaseException) -> int | None:
    """The errno of an error, also of one that only writes it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _WRITTEN_NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else None


def _short(filename: str) -> str:
    """The last two parts of a path, which are the same wherever the package is installed."""
    return "/".join(Path(filename).parts[-2:])


def _plain(text: str) -> str:
    """A text on one line, without characters that steer a terminal."""
    return " ".join(_CONTROL.sub(" ", text).split())
