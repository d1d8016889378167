"""Useful time of a stage: how long it sampled, judged, trained or evaluated.

A stage that keeps finished parts over attempts leaves the useful time of these parts beside them, so that the attempt
that ends the stage can report what earlier attempts did for its artifact.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from dynalign_contract.files import NotAFileError, open_plain, write_bytes

USEFUL_TIME_FILE: Final = ".useful-seconds"
"""Beside the parts of an unfinished artifact: useful seconds of the finished parts."""
_LONGEST: Final = 64

Useful = Callable[[], AbstractContextManager[None]]
"""Makes a context in which all time is useful work."""


class UsefulTime:
    """Sum of the time spans in which a stage did useful work. Spans may be nested: the outermost one counts."""

    def __init__(self, on_first: Callable[[], None], on_end: Callable[[], None] = lambda: None) -> None:
        """`on_first` is called when a span begins, `on_end` when it ends."""
        self.seconds = 0.0
        """Useful time of this attempt."""
        self.preserved_seconds = 0.0
        """Useful time of earlier attempts whose work this one has kept."""
        self._on_first, self._on_end = on_first, on_end
        self._depth = 0

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count the time of the block, also if it raises."""
        if self._depth:
            yield
            return
        self._on_first()
        started = time.monotonic()
        self._depth = 1
        try:
            yield
        finally:
            self._depth = 0
            self.add(time.monotonic() - started)
            self._on_end()

    def add(self, seconds: float) -> None:
        """Count useful time that another process has measured."""
        self.seconds += max(0.0, seconds)

    def save(self, folder: Path) -> None:
        """Leave the useful time of all attempts so far beside the parts that they have finished."""
        write_bytes(folder / USEFUL_TIME_FILE, f"{self.preserved_seconds + self.seconds:.3f}".encode())

    def load(self, folder: Path) -> None:
        """Read what an earlier attempt has saved; a file that holds no such number counts as none."""
        try:
            with open_plain(folder / USEFUL_TIME_FILE) as file:
                seconds = float(file.read(_LONGEST))
        except (FileNotFoundError, NotADirectoryError, NotAFileError, PermissionError, ValueError):
            return
        self.preserved_seconds = seconds if math.isfinite(seconds) and seconds > 0 else 0.0
