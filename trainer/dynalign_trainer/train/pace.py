"""When a checkpoint is due, and whether there is time for one before the process is killed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dynalign_contract.settings import Checkpoints

_SPARE: Final = 1.5
"""Part of the time of the longest checkpoint so far that one on SIGTERM is given: volumes are not equally fast."""


@dataclass
class Pace:
    """The times of one process's steps and checkpoints. Rank 0's decides for all."""

    rules: Checkpoints
    clock: Callable[[], float] = time.monotonic
    _saved: float = field(init=False)
    _stepped: float = field(init=False)
    _longest_step: float = field(init=False, default=0.0)
    _longest_save: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._saved = self._stepped = self.clock()

    def end_step(self) -> None:
        """Call it when a step has ended."""
        now = self.clock()
        self._longest_step = max(self._longest_step, now - self._stepped)
        self._stepped = now

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint belongs after step `done` (1-based), the one that has just ended.

        By time it does when the step to come might end after the limit.
        """
        steps, minutes = self.rules.steps, self.rules.minutes
        if steps is not None and done % steps == 0:
            return True
        return minutes is not None and self._stepped - self._saved + self._longest_step >= 60 * minutes

    def fits(self, seconds: float | None) -> bool:
        """Whether a checkpoint is whole within so many seconds, None for no limit; the first one is always tried."""
        return seconds is None or _SPARE * self._longest_save <= seconds

    def begin_saving(self) -> None:
        """Call it before a checkpoint is written."""
        self._stepped = self.clock()

    def end_saving(self) -> None:
        """Call it when a checkpoint is sealed."""
        now = self.clock()
        self._longest_save = max(self._longest_save, now - self._stepped)
        self._saved = self._stepped = now
