"""Reads the running stages' /metrics and keeps what each Job last said."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import aiohttp

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kube_api import KubeApi
from dynalign_operator.clusters.kube_paths import PODS, object_path
from dynalign_operator.clusters.kube_store import Kind, Store, job_of
from dynalign_operator.clusters.stage_metrics import LiveMetrics, combine_progress, parse_metrics
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.pod import METRICS_PORT
from dynalign_operator.planning.observed import JobProgress

READ_EVERY_SECONDS: Final = 10.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)
_AT_ONCE: Final = 50
"""Pods that are asked at the same time."""

Read = Callable[[KubernetesObject], Awaitable[str]]
"""Reads a pod's /metrics; raises ClusterError, OSError, TimeoutError or aiohttp.ClientError."""


@dataclass
class ProgressBook:
    """What each Job last said of itself, all its pods together."""

    progress: dict[RunKey, tuple[JobProgress, datetime]] = field(default_factory=dict)
    """Namespace and name of a Job -> progress, and when it last changed."""
    live: dict[RunKey, tuple[LiveMetrics, ...]] = field(default_factory=dict)
    """Namespace and name of a Job -> the latest reading of each of its pods that answered."""

    def note(self, job: RunKey, readings: Iterable[LiveMetrics], now: datetime) -> bool:
        """Keep the readings of a Job's pods; True when they say something new."""
        read = tuple(readings)
        if not read or self.live.get(job) == read:
            return False
        self.live[job] = read
        self.progress[job] = (combine_progress(read), now)
        return True

    def keep(self, jobs: Iterable[RunKey]) -> None:
        """Forget all other Jobs."""
        kept = set(jobs)
        for book in (self.progress, self.live):
            for job in book.keys() - kept:
                del book[job]


async def read_progress(
    store: Store, book: ProgressBook, read: Read, enqueue: Callable[[RunKey], None], clock: Callable[[], datetime]
) -> None:
    """Read all running stages once; runs whose stages say something new are to be looked at."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(pod: KubernetesObject) -> LiveMetrics | None:
        async with gate:
            try:
                return parse_metrics(await read(pod))
            except (ClusterError, OSError, TimeoutError, aiohttp.ClientError, ValueError, KeyError):
                return None

    jobs: dict[RunKey, RunKey] = {}
    asked: dict[RunKey, list[KubernetesObject]] = {}
    for run in store.runs():
        for pod in store.of_run(Kind.POD, run):
            if pod.get("status", {}).get("phase") == "Running" and (name := job_of(pod)):
                job = RunKey(run.namespace, name)
                jobs[job] = run
                asked.setdefault(job, []).append(pod)
    for job, pods in asked.items():
        readings = [reading for reading in await asyncio.gather(*map(ask, pods)) if reading is not None]
        if book.note(job, readings, clock()):
            enqueue(jobs[job])
    book.keep(jobs)


def by_pod_ip(session: aiohttp.ClientSession) -> Read:
    """Ask the pod itself."""

    async def read(pod: KubernetesObject) -> str:
        address = pod["status"].get("podIP")
        if not address:
            raise ClusterError("the pod has no address yet")
        host = f"[{address}]" if ":" in address else address
        async with session.get(f"http://{host}:{METRICS_PORT}/metrics", timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            return await answer.text()

    return read


def by_api_proxy(api: KubeApi) -> Read:
    """Ask the API server to ask the pod."""

    async def read(pod: KubernetesObject) -> str:
        metadata = pod["metadata"]
        target = f"{metadata['name']}:{METRICS_PORT}"
        return await api.text(object_path(PODS, metadata["namespace"], target, "proxy", "metrics"))

    return read
