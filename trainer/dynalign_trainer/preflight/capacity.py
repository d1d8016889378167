"""Whether the volume and the memory hold what fetch is about to make."""

import shutil
from pathlib import Path
from typing import Final

import psutil

from dynalign_contract.errors import MemoryFullError, VolumeFullError
from dynalign_trainer.preflight.dequantised import Needs, gib

_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container reads its memory limit, in versions 2 and 1 of control groups."""


def check_capacity(needs: Needs, folder: Path) -> None:
    """Hold a conversion against the free space below `folder`, and against the container's or machine's memory.

    Raises VolumeFullError, which a later attempt may not meet, and MemoryFullError, which it would.
    """
    _check_space(needs, folder)
    memory = _memory()
    if memory < needs.memory:
        wanted = -(-needs.memory // 2**30)
        raise MemoryFullError(
            f"converting the weights to BFloat16 needs about {gib(needs.memory)} of memory, and the fetch stage has "
            f"{gib(memory)}. Raise memory in spec.stages.fetch.resources.limits to {wanted}Gi, or name the model in "
            "BFloat16 that the weights were made from in spec.model.uri."
        )


def _check_space(needs: Needs, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free + present < needs.disk:
        raise VolumeFullError(
            f"the volume below {folder} has {gib(free)} of space, and {gib(needs.disk - present)} are needed: "
            f"{gib(needs.source)} for the quantised weights, until they are converted, and {gib(needs.copy)} for the "
            "copy in BFloat16. Free space or enlarge spec.storage.size; the next attempt looks again."
        )


def _memory() -> int:
    """Bytes of memory that this process may use at most."""
    return min([psutil.virtual_memory().total, *filter(None, map(_limit, _LIMITS))])


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not in a container, or `max`
        return None
