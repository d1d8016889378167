"""What ended the training processes, out of what they wrote: one error instead of the ends of many tracebacks. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_PREFIX: Final = re.compile(r"^(?:\[(?:rank|default)?\d+\]:\s?|\[rank\d+\]\s)+")
"""What torch and torchrun put before every line of a rank."""
_FRAME: Final = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_ERROR: Final = re.compile(
    r"(?P<type>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Timeout))"
    r"(?::\s*(?P<text>.*))?"
)
_CONSEQUENCE: Final = re.compile(
    r"ChildFailedError|SignalException|DistBackendError|DistNetworkError|DistStoreError|RendezvousConnectionError"
    r"|Connection (?:closed|reset)|gloo|NCCL|Broken pipe|Warning$",
    re.IGNORECASE,
)
"""What ranks raise because another one has ended."""
_NOISE: Final = re.compile(r"[\s^~|=*-]*")


@dataclass(frozen=True)
class WorkerError:
    """The error that a training process raised."""

    type: str
    text: str
    place: str
    """`file:line in function` of its last frame; empty where none was written."""

    def __str__(self) -> str:
        told = f"{self.type}: {self.text}" if self.text else self.type
        return f"{told} ({self.place})" if self.place else told


def find_error(lines: Iterable[str]) -> WorkerError | None:
    """The first error of a traceback that is no consequence of another process's end; None where there is none."""
    found: list[WorkerError] = []
    place, is_open = "", False
    for raw in lines:
        line = clean(raw)
        if line.startswith("Traceback (most recent call last)"):
            place, is_open = "", True
        elif frame := _FRAME.match(line):
            place = f"{'/'.join(frame['file'].split('/')[-2:])}:{frame['line']} in {frame['function']}"
        elif is_open and (error := _ERROR.fullmatch(line)):
            found.append(WorkerError(error["type"].rpartition(".")[2], error["text"] or "", place))
            is_open = False
    first_hand = [error for error in found if not is_consequence(error)]
    return next(iter(first_hand or found), None)


def is_consequence(error: WorkerError) -> bool:
    """Whether a process raised it because a link or another process was gone; the next attempt may go well."""
    return bool(_CONSEQUENCE.search(f"{error.text} {error.type}"))


def last_lines(lines: Iterable[str], count: int) -> list[str]:
    """The last lines that say something: no frames, carets, rules, or beginnings of tracebacks."""
    told = [clean(line).strip() for line in lines]
    return [line for line in told if not _is_noise(line)][-count:]


def clean(line: str) -> str:
    """A line without the rank before it."""
    return _PREFIX.sub("", line.rstrip())


def _is_noise(line: str) -> bool:
    return bool(_NOISE.fullmatch(line)) or line.startswith("Traceback (most recent") or bool(_FRAME.match(line))


def killed(rank: int, code: int) -> str:
    """What to say of a rank that a signal has ended; `code` is the signal's number, negative."""
    return f"the training process of rank {rank} was killed by signal {-code}; signal 9 often means too little memory"
