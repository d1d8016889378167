"""What every benchmark ends with: a table for people and, as the last line, one JSON object for machines."""

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Distribution:
    """What is told of a sample, in the sample's unit."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Machine:
    """Where a figure was measured."""

    cpus: int
    """Cores that this process may use."""
    cpu: str
    memory_gib: float
    system: str
    load: float
    """Processes that ran or waited to run, mean of the minute before: above 0 the machine was shared."""


def percentile(sample: Sequence[float], share: float) -> float:
    """The value below which this share (0 to 1) of the sample lies, interpolated linearly between its neighbours.

    Raises ValueError for an empty sample.
    """
    if not sample:
        raise ValueError("an empty sample has no percentiles")
    ordered = sorted(sample)
    place = share * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def describe(sample: Sequence[float]) -> Distribution:
    """The sample's distribution. Raises ValueError for an empty sample."""
    p50, p95, p99 = (percentile(sample, share) for share in (0.5, 0.95, 0.99))
    return Distribution(len(sample), p50, p95, p99, max(sample))


def this_machine() -> Machine:
    """The machine that this process runs on; call it before the work begins, because of the load."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
    )


def print_report(
    name: str, machine: Machine, table: Table, values: Mapping[str, float], ratios: Mapping[str, float]
) -> None:
    """Print the table, then one line of JSON: `name`, `machine`, `values`, `ratios`."""
    Console(highlight=False).print(table)
    sys.stdout.write(report_line(name, machine, values, ratios) + "\n")
    sys.stdout.flush()


def report_line(name: str, machine: Machine, values: Mapping[str, float], ratios: Mapping[str, float]) -> str:
    """The JSON object, on one line."""
    report = {"name": name, "machine": asdict(machine), "values": dict(values), "ratios": dict(ratios)}
    return json.dumps(report, allow_nan=False)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
