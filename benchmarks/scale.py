"""`make bench-scale`: one operator, hundreds of active runs and thousands of finished ones, on a real API server.

The nodes are KWOK's: every pod ends well after about a second. Most of what this costs is Kubernetes' own work, so the
report names the CPU of each process; where the machine is too small for the full size, `--shares` gives the curve.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.table import Column, Table

from benchmarks.fake_nodes import fake_nodes
from benchmarks.job_events import Arrival, find_transitions
from benchmarks.processes import suspend, usage_by_name, usage_of
from benchmarks.report import describe, print_report, this_machine
from benchmarks.scale_runs import NAMESPACE, create_active, create_finished, storage_objects
from benchmarks.watching import Feed, follow_jobs
from dynalign_operator.clusters.kubernetes.api import open_kube_api
from lab.api_server import ApiServer, start_api_server
from lab.cluster import Cluster, LabError, say
from lab.processes import free_port

NAME: Final = "bench-scale"
NODES: Final = 50
FINISHED_ITERATIONS: Final = 10
ACTIVE_ITERATIONS: Final = 1000
"""More than any of them gets through."""
SCRAPES: Final = 5
PATIENCE: Final = 900.0
"""Seconds for an operator to be done with what it finds."""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    active: int
    finished: int
    seconds: float
    """Of load before and after the restart."""
    stage_seconds: float


@dataclass(frozen=True)
class Figures:
    """What one size gave."""

    runs: int
    jobs: int
    rss_mib: float
    restart_s: float
    transitions: tuple[float, ...]
    """Seconds."""
    scrape_s: float
    cpu: Mapping[str, float]
    """Cores that each process kept busy under load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured, 1 with a sentence when it could not be."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--active", type=int, default=500, help="runs that have stages to do")
    parser.add_argument("--finished", type=int, default=2000, help="runs that have ended, with ten iterations each")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load before the restart, and after it")
    parser.add_argument("--stage-seconds", type=float, default=1.0, help="how long a pod runs, about")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0], help="of both sizes, measured one by one")
    parser.add_argument("--folder", type=Path, help="where logs stay; a temporary one unless given")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = this_machine()
    figures = []
    try:
        for share in options.shares:
            size = Options(
                round(options.active * share), round(options.finished * share), options.seconds, options.stage_seconds
            )
            figures.append(_measure_in(options.folder, size))
    except (LabError, AssertionError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    print_report(NAME, machine, build_table(figures), values_of(figures[-1]), {})
    return 0


def values_of(figures: Figures) -> dict[str, float]:
    """The values of the JSON line."""
    told = describe(figures.transitions)
    return {
        "rss_mib": round(figures.rss_mib, 1),
        "restart_s": round(figures.restart_s, 1),
        **{f"{name}_ms": round(1000 * getattr(told, name), 1) for name in ("p50", "p95", "p99")},
        "scrape_s": round(figures.scrape_s, 3),
        "runs": figures.runs,
        "jobs": figures.jobs,
    }


def build_table(figures: Sequence[Figures]) -> Table:
    """One row a size."""
    heads = ("runs", "jobs", "peak MiB", "restart s", "p50 ms", "p95 ms", "p99 ms", "scrape CPU s")
    table = Table(*(Column(head, justify="right") for head in heads))
    busy: list[str] = []
    for each in figures:
        values = values_of(each)
        cores = ", ".join(f"{name} {cores:.2f}" for name, cores in sorted(each.cpu.items(), key=lambda item: -item[1]))
        busy.append(f"cores busy with {each.runs} runs: {cores}")
        names = ("runs", "jobs", "rss_mib", "restart_s", "p50_ms", "p95_ms", "p99_ms", "scrape_s")
        table.add_row(*(f"{values[name]:g}" for name in names))
    table.caption, table.caption_justify = "\n".join(busy), "left"
    return table


def _measure_in(folder: Path | None, options: Options) -> Figures:
    with tempfile.TemporaryDirectory(prefix="dynalign-scale-") as temporary:
        place = (folder or Path(temporary)) / f"{options.active}-{options.finished}"
        with start_api_server(place) as server, fake_nodes(server, NODES, options.stage_seconds):
            os.environ["KUBECONFIG"] = str(server.kubeconfig)
            return measure(server, options)


def measure(server: ApiServer, options: Options) -> Figures:
    """Load, a restart under load, and scrapes when all is quiet again."""
    for document in storage_objects():
        applied = server.apply(document)
        if applied.returncode != 0:
            raise LabError(applied.stderr)
    bound = server.kubectl(
        "patch", "pvc", "shared", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p",
        '{"status":{"phase":"Bound","accessModes":["ReadWriteMany"],"capacity":{"storage":"1Gi"}}}',
    )  # fmt: skip
    if bound.returncode != 0:
        raise LabError(bound.stderr)
    say(f"{options.finished} finished runs")
    asyncio.run(_create(options.finished, 0))
    told = Told(server)
    with operator(server) as first:
        first.until_reconciled(options.finished)
        say(f"{options.active} active runs")
        asyncio.run(_create(0, options.active))
        before, since = usage_by_name(), time.monotonic()
        time.sleep(options.seconds)
        after, seconds = usage_by_name(), time.monotonic() - since
        peak = usage_of(first.pid).peak_rss_mib
    say("the operator is gone; the next one begins")
    with operator(server) as second:
        restart = second.until_reconciled(options.finished + options.active)
        time.sleep(options.seconds)
        suspend("kwok")  # no pod ends any more, and what the operator does then is to answer
        scrape = second.scrape_seconds()
        peak = max(peak, usage_of(second.pid).peak_rss_mib)
    arrivals = told.arrivals()
    transitions = [each.seconds for jobs in _by_run(arrivals).values() for each in find_transitions(jobs)]
    if not transitions:
        raise LabError(f"no run got from one Job to the next; the logs are in {server.folder}")
    cpu = {
        name: (use.cpu_seconds - before[name].cpu_seconds) / seconds for name, use in after.items() if name in before
    }
    jobs = len({arrival.name for arrival in arrivals})
    return Figures(options.active + options.finished, jobs, peak, restart, tuple(transitions), scrape, cpu)


async def _create(finished: int, active: int) -> None:
    async with open_kube_api() as api:
        await create_finished(api, finished, FINISHED_ITERATIONS)
        await create_active(api, [f"active-{index:04d}" for index in range(active)], ACTIVE_ITERATIONS)


@dataclass(frozen=True)
class OperatorProcess:
    """An operator that runs."""

    pid: int
    probes: int
    metrics: int
    """Ports."""
    started: float
    """Time of `time.monotonic`."""

    def until_reconciled(self, runs: int) -> float:
        """Wait until it has listed everything and then worked on so many runs; seconds since it was started.

        All runs wait in the queue before the first is worked on, and one that is told of again goes to its end. So the
        first reconciles are of each run one.
        """
        self._until(lambda: self._is_ready() and self._read_number("dynalign_reconcile_seconds_count") >= runs)
        return time.monotonic() - self.started

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise LabError(f"the operator was not done with what it found within {PATIENCE:.0f} s")
            time.sleep(0.5)

    def scrape_seconds(self) -> float:
        """CPU seconds of one scrape: what scrapes take beyond what the operator uses anyway."""
        self._until(lambda: self._read_number("dynalign_queue_depth") == 0)
        begin, since = usage_of(self.pid).cpu_seconds, time.monotonic()
        for _ in range(SCRAPES):
            self._read("metrics")
        used, took = usage_of(self.pid).cpu_seconds - begin, time.monotonic() - since
        idle = usage_of(self.pid).cpu_seconds
        time.sleep(took)
        return max(0.0, used - (usage_of(self.pid).cpu_seconds - idle)) / SCRAPES

    def _is_ready(self) -> bool:
        try:
            return bool(self._read("readyz"))
        except (urllib.error.URLError, OSError):
            return False

    def _read_number(self, name: str) -> float:
        lines = self._read("metrics").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def _read(self, page: str) -> str:
        port = self.metrics if page == "metrics" else self.probes
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=120) as answer:
            text: str = answer.read().decode()
            return text


@contextmanager
def operator(server: ApiServer) -> Iterator[OperatorProcess]:
    """The real process, killed at the end."""
    probes, metrics = free_port(), free_port()
    environment = {
        **os.environ,
        "KUBECONFIG": str(server.kubeconfig),
        "DYNALIGN_PROBE_PORT": str(probes),
        "DYNALIGN_METRICS_PORT": str(metrics),
        "DYNALIGN_PROGRESS": "Off",
    }
    with (
        (server.folder / "operator.log").open("a") as log,
        subprocess.Popen([sys.executable, "-m", "dynalign_operator"], env=environment, stderr=log) as process,
    ):
        try:
            yield OperatorProcess(process.pid, probes, metrics, time.monotonic())
        finally:
            process.kill()


class Told:
    """What a watch tells of all Jobs; of each event no more is kept than is needed."""

    def __init__(self, server: ApiServer) -> None:
        self._feed, self._kept = Feed(), list[Arrival | Exception]()
        follow_jobs(Cluster(str(server.kubeconfig)), NAMESPACE, "app.kubernetes.io/managed-by=dynalign", self._feed)
        threading.Thread(target=self._shrink, daemon=True).start()

    def arrivals(self) -> list[Arrival]:
        """The events until now, in order. Raises what broke the watch."""
        kept = list(self._kept)
        for each in kept:
            if isinstance(each, Exception):
                raise each
        return [each for each in kept if isinstance(each, Arrival)]

    def _shrink(self) -> None:
        while True:
            arrival = self._feed.get()
            if isinstance(arrival, Arrival):
                metadata, status = arrival.thing["metadata"], arrival.thing.get("status", {})
                thing = {
                    "metadata": {"name": metadata["name"], "labels": metadata["labels"]},
                    "status": {"conditions": status.get("conditions", [])},
                }
                arrival = replace(arrival, thing=thing)
            self._kept.append(arrival)


def _by_run(arrivals: Sequence[Arrival]) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        found.setdefault(arrival.thing["metadata"]["labels"]["dynalign.io/run"], []).append(arrival)
    return found


if __name__ == "__main__":
    sys.exit(main())
