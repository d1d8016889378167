"""Files that are either whole or absent: temporary name, fsync, rename. And files that are nothing but files."""

import hashlib
import os
import re
import shutil
import socket
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

_TEMPORARY: Final = re.compile(r"\..+\.\d+\.tmp|\.nfs[0-9a-f]{24}")


def temporary_beside(path: Path) -> Path:
    """A temporary path beside `path` that no other process uses, on this machine or in another pod.

    The first process of every pod has the number 1; the pod's name tells them apart.
    """
    pod = zlib.crc32(socket.gethostname().encode())
    return path.with_name(f".{path.name}.{pod}{os.getpid():07d}.tmp")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def fsync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_temporary(name: str) -> bool:
    """Whether `atomic_path` gives an unfinished file such a name, or NFS one that was removed while it was open."""
    return _TEMPORARY.fullmatch(name) is not None


class NotAFileError(OSError):
    """A folder, symbolic link, pipe or device has the name of a file."""


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading; symbolic links are not followed, and a pipe does not block.

    Raises NotAFileError naming what is there instead, or another OSError.
    """
    if path.is_symlink():
        raise NotAFileError(f"{path} is a symbolic link, not a file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise NotAFileError(f"{path} is {kind}, not a file")
    return os.fdopen(descriptor, "rb")


def remove(path: Path) -> None:
    """Remove whatever has this name: a file, a link (not what it leads to), or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
