"""Phases of a stage's process, for its log: where the time before and after its useful work went."""

import os
import time
from collections.abc import Mapping

import psutil

from dynalign_contract.phases import Phase
from dynalign_contract.pod_paths import Variable


def start_of(environment: Mapping[str, str]) -> float:
    """Unix time at which this process began, or at which `dynalign run` asked for it."""
    began = process_start()
    try:
        asked = float(environment.get(Variable.ASKED_AT, ""))
    except ValueError:
        return began
    return min(began, asked) if asked > 0 else began


def process_start() -> float:
    """Unix time at which this process began, on Linux to a hundredth of a second.

    The kernel counts from the boot, whose time it tells in whole seconds (`btime` of /proc/stat): psutil's sum of both
    may be a second too early.
    """
    began = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return began
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return began - psutil.boot_time() + booted


class Phases:
    """Seconds of the phases of this process. Each phase lasts from the end of the one before to its own mark."""

    def __init__(self, start: float | None = None) -> None:
        """`start`: Unix time at which the first phase began; None for that of the process."""
        self.start = start_of(os.environ) if start is None else start
        self.seconds: dict[Phase, float] = {}
        self._reached = self.start

    def end(self, phase: Phase) -> None:
        """Mark the end of a phase; one that is repeated is added up."""
        now = max(time.time(), self._reached)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._reached
        self._reached = now

    def once(self, phase: Phase) -> None:
        """Mark the end of a phase unless it has ended before."""
        if phase not in self.seconds:
            self.end(phase)
