"""Memory that a process may take, and what of it is free."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from dynalign_trainer.runtime.machine import count_gpus


@dataclass(frozen=True)
class ControlGroup:
    """Files that say how much memory a container may take, and has taken."""

    limit: Path
    usage: Path
    details: Path
    cache: str
    """Line of `details` with the bytes of files that are read but not at work, which make room when memory is short."""

    def bytes_of_limit(self) -> int | None:
        """The limit; None outside a container, and where there is none."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: `max`
            return int(self.limit.read_text())
        return None

    def free(self) -> int | None:
        """What the limit leaves; None without a limit."""
        limit = self.bytes_of_limit()
        with contextlib.suppress(OSError, ValueError):
            lines = dict(line.split() for line in self.details.read_text().splitlines())
            used = int(self.usage.read_text()) - int(lines.get(self.cache, 0))
            return None if limit is None else max(0, limit - used)
        return limit


_ROOT: Final = Path("/sys/fs/cgroup")
CONTROL_GROUPS: Final = (
    ControlGroup(_ROOT / "memory.max", _ROOT / "memory.current", _ROOT / "memory.stat", "inactive_file"),
    ControlGroup(
        _ROOT / "memory/memory.limit_in_bytes",
        _ROOT / "memory/memory.usage_in_bytes",
        _ROOT / "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Control groups of the second and the first version."""


def memory_limit() -> int:
    """Bytes of memory that this process may take at most: those of its container, or the machine's."""
    limits = (group.bytes_of_limit() for group in CONTROL_GROUPS)
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit is not None)])


def free_memory() -> int:
    """Bytes that this process can still take: of its GPU, or, without GPUs, of its container's or the machine's memory.

    Those of a container or a machine are shared with other processes.
    """
    if count_gpus():
        import torch

        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + unused
    left = (group.free() for group in CONTROL_GROUPS)
    return min([psutil.virtual_memory().available, *(free for free in left if free is not None)])
