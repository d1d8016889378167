"""Seconds and memory of something that runs on a device."""

import time
from collections.abc import Callable

import torch


def best_seconds(work: Callable[[], object], *, repeats: int) -> float:
    """The shortest of some runs after one that nobody times."""
    work()
    seconds = []
    for _ in range(repeats):
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def peak_gib(work: Callable[[], object]) -> float | None:
    """Memory of the GPU that `work` takes beside what is there already; None on a CPU."""
    if not torch.cuda.is_available():
        work()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
