"""Leases: files that say which pod makes which part, so that a pod that is slow, or not there yet, delays nobody.

A pod takes a part by creating its lease, which a file system lets only one of them do, and renews it while it works. A
lease has expired for a pod that saw it unchanged for `EXPIRY_SECONDS`: each goes by its own clock, as in the leader
election of Kubernetes. Two pods may work at one part for a moment, if a holder was slower than that; what they make
goes into files of different names, and the parts are the same.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

EXPIRY_SECONDS: Final = 60.0
"""Longer than any step of an engine between two renewals, and than a network file system remembers what it has read."""
_RENEWAL_SECONDS: Final = 5.0


class Leases:
    """The leases in one folder as one of the pods sees them."""

    def __init__(self, folder: Path, holder: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`holder` is this pod's index: a pod that comes back still has the leases that it had."""
        self.folder = folder
        self._holder = str(holder)
        self._clock = clock
        self._held: set[str] = set()
        self._renewals = 0
        self._renewed = clock()
        self._seen: dict[str, tuple[str, float]] = {}
        """Contents of the leases of others, and since when they are unchanged."""

    def names(self) -> frozenset[str]:
        """Names of all files in the folder; none where it does not exist."""
        try:
            return frozenset(path.name for path in self.folder.iterdir())
        except OSError as error:
            if _is_gone(error):
                return frozenset()
            raise

    def take(self, part: str) -> bool:
        """Whether this pod holds the lease of a part now: nobody had it, or an earlier attempt of this pod."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._path(part), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if self._read(part).partition(" ")[0] != self._holder:
                return False
        else:
            os.close(descriptor)
        self._held.add(part)
        self._write(part)
        return True

    def take_over(self, part: str) -> bool:
        """Take a lease that has expired; False where another pod was faster."""
        self._path(part).unlink(missing_ok=True)
        return self.take(part)

    def has_expired(self, part: str) -> bool:
        """Whether another pod's lease has not been renewed while this pod watched it; call it again and again."""
        content, now = self._read(part), self._clock()
        seen, since = self._seen.get(part, ("", now))
        if part not in self._seen or seen != content:
            self._seen[part] = content, now
            return False
        return now - since >= EXPIRY_SECONDS

    def renew(self) -> None:
        """Say that this pod is alive; call it between all steps, it writes every few seconds only."""
        if self._clock() - self._renewed < _RENEWAL_SECONDS:
            return
        for part in list(self._held):
            if self.holds(part):
                self._write(part)
        self._renewed = self._clock()

    def holds(self, part: str) -> bool:
        """Whether this pod still holds a lease; one that another pod took over, or that is gone, is forgotten."""
        if part in self._held and self._read(part).partition(" ")[0] != self._holder:
            self._held.discard(part)
        return part in self._held

    def release(self) -> None:
        """Let others take what this pod holds. What cannot be released expires."""
        with contextlib.suppress(OSError):
            for part in list(self._held):
                if self.holds(part):
                    self._path(part).unlink(missing_ok=True)
        self._held.clear()

    def _write(self, part: str) -> None:
        """Write in place: a lease that is gone meanwhile, for all parts are there, must not come back."""
        self._renewals += 1
        try:
            with self._path(part).open("r+") as file:
                file.write(f"{self._holder} {self._renewals}")
                file.truncate()
        except OSError as error:
            if not _is_gone(error):
                raise
            self._held.discard(part)

    def _read(self, part: str) -> str:
        """Contents of a lease; empty where there is none, or it is being written."""
        try:
            return self._path(part).read_text()
        except OSError as error:
            if _is_gone(error):
                return ""
            raise

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.lease"


def _is_gone(error: OSError) -> bool:
    """Whether a file or folder was removed, perhaps by another node while it was open here (ESTALE on NFS)."""
    return isinstance(error, FileNotFoundError) or error.errno == errno.ESTALE
