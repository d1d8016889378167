"""Types that a check gets and returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final


class Device(StrEnum):
    """Where the checks compute."""

    CUDA = "cuda"
    """At full size."""
    CPU = "cpu"
    """With tiny sizes: the programs of the checks run, and whatever does not depend on CUDA is compared."""


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not run, or without meaning on this device; it says nothing about the machine."""


@dataclass(frozen=True)
class Place:
    """Where a check computes and writes."""

    device: Device
    folder: Path
    """An empty folder, removed afterwards."""

    @property
    def is_cuda(self) -> bool:
        """Whether sizes are those of a GPU."""
        return self.device is Device.CUDA


@dataclass(frozen=True)
class Finding:
    """What a check measured, and which of its criteria were not met."""

    values: Mapping[str, Any]
    """Anything that JSON can hold."""
    faults: tuple[str, ...] = ()
    """One sentence a criterion; the check has passed where there is none."""


class SkippedError(Exception):
    """The check has no meaning here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One of the checks, in the module of this package that has its name."""

    name: str
    question: str
    seconds: int
    """Time limit of its process."""


CHECKS: Final = (
    Check("versions", "are the libraries those that the stages are written for", 45),
    Check("attention", "does packed attention equal float32, forward and backward", 60),
    Check("worker", "does training in bfloat16 follow float32, and resume", 170),
    Check("accumulation", "are gradients summed in float32", 60),
    Check("throughput", "how fast is an 8B model trained with LoRA, in how much memory", 180),
    Check("gathering", "is index_select the faster way to gather keys", 30),
    Check("forking", "may engines fork after the machine was looked at", 45),
    Check("head", "does a full-size head keep within its memory", 40),
)
"""In the order in which they run: what the others rest on first."""
