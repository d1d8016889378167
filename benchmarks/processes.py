"""What the processes of a benchmark use: seconds of CPU and memory, by name."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What one process has used until now."""

    cpu_seconds: float
    rss_mib: float
    peak_rss_mib: float


def usage_of(pid: int) -> Usage:
    """Usage of a process that runs. Raises OSError when it does not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Vm")
    )
    sizes = {name: int(text.split()[0]) / 1024 for name, text in status.items()}
    return Usage((int(fields[11]) + int(fields[12])) / _TICK, sizes["VmRSS"], sizes["VmHWM"])


def usage_by_name() -> dict[str, Usage]:
    """Usage of this process' children, by the name of their program, and of itself (`benchmark`)."""
    found = {"benchmark": usage_of(os.getpid())}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            command = child.cmdline()
            is_operator = "dynalign_operator" in command
            found["operator" if is_operator else Path(command[0]).name] = usage_of(child.pid)
    return found


def suspend(program: str) -> None:
    """Stop this process' children of that name for good; a stopped process still ends when it is killed."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if Path(child.cmdline()[0]).name == program:
                child.suspend()
