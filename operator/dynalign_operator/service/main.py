"""`python -m dynalign_operator`: watches, workers, progress, probes and metrics of one operator process."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import generate_latest

from dynalign_contract.console import configure_logging
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.api import KubeApi, open_kube_api
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.progress import read_progress
from dynalign_operator.clusters.kubernetes.progress_book import ProgressBook
from dynalign_operator.clusters.kubernetes.progress_source import ProgressSource
from dynalign_operator.clusters.kubernetes.resync import Resync
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.clusters.kubernetes.transitions import Transitions
from dynalign_operator.clusters.kubernetes.watches import run_watches
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.manifests.installation import SettingsError
from dynalign_operator.metrics import KnownRun, OperatorMetrics, RunTexts
from dynalign_operator.reconcile import trace_nothing
from dynalign_operator.service.health import serve_health, serve_metrics
from dynalign_operator.service.notifications import Notifications
from dynalign_operator.service.run_worker import RunWorker
from dynalign_operator.service.settings import OperatorSettings, read_settings
from dynalign_operator.service.tracing import Tracer, open_tracer
from dynalign_operator.service.workqueue import WorkQueue

WATCHES: Final = "watches"
SCRAPE_SECONDS: Final = 2.0
"""Time within which one scrape computes the series of runs that have changed; later ones follow in the next scrape."""
SERIES_EVERY_SECONDS: Final = 10.0
SERIES_PAUSE_SECONDS: Final = 0.01
"""Pause between two runs whose series are computed ahead of scrapes: about half a core while there are many."""
_WATCHES_SECONDS: Final = 5.0
"""How long the watches may take to end at SIGTERM."""

log = logging.getLogger("dynalign.operator")


def main() -> None:
    """Run until SIGTERM or SIGINT; exit code 2 if the environment is wrong, 1 if a task ended early."""
    try:
        settings = read_settings(os.environ)
        tracer = open_tracer() if settings.exports_traces else None
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logging(settings.log_level)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it would report every event
    try:
        asyncio.run(serve(settings, tracer))
    finally:
        if tracer is not None:
            tracer.close()


async def serve(settings: OperatorSettings, tracer: Tracer | None = None) -> None:
    """Connect, watch and work until SIGTERM or SIGINT. If any task ends early, the process exits with its error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    metrics = OperatorMetrics()
    async with open_kube_api(metrics.record_request) as api:
        operator = Operator(settings, api, metrics, tracer)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                serve_health(settings.probe_port, alive=operator.liveness_problem, ready=operator.readiness_problem)
            )
            await stack.enter_async_context(serve_metrics(settings.metrics_port, operator.write_metrics))
            tasks = [asyncio.create_task(work, name=name) for name, work in operator.work(stop)]
            try:
                ending = asyncio.create_task(stop.wait(), name="stop")
                done, _ = await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.set()
                await _cancel(tasks)
        for task in done - {ending}:
            _raise_task_error(task)


def _raise_task_error(task: asyncio.Task[Any]) -> None:
    """Raise the error of a task that ended early. At SIGTERM kopf ends the watches and cancels the rest."""
    if task.cancelled() or (task.get_name() == WATCHES and task.exception() is None):
        return
    task.result()
    raise RuntimeError(f"{task.get_name()} ended early")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel all tasks but the watches, which end by themselves once `stop` is set; cancel them if they take long.

    The others go first, for kopf waits up to five seconds for every task that began after its own.
    """
    watches = {task for task in tasks if task.get_name() == WATCHES}
    for task in set(tasks) - watches:
        task.cancel()
    _, left = await asyncio.wait(watches, timeout=_WATCHES_SECONDS)
    for task in left:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Operator:
    """The parts of one operator process and their connections."""

    def __init__(
        self, settings: OperatorSettings, api: KubeApi, metrics: OperatorMetrics, tracer: Tracer | None = None
    ) -> None:
        self._settings, self._api, self._metrics = settings, api, metrics
        self._store, self._book = Store(), ProgressBook()
        self._queue: WorkQueue[RunKey] = WorkQueue()
        self._cluster = KubeCluster(api, self._store, self._book.progress)
        self._resync = Resync(
            api,
            self._store,
            settings.namespaces,
            self._queue.add,
            lambda missed: metrics.record_comparison(missed, time.time()),
        )
        self._notifications = Notifications(self._cluster, self._queue.add)
        notify = self._notifications.consider
        trace = trace_nothing if tracer is None else tracer.trace
        self._worker = RunWorker(self._cluster, self._queue, metrics, settings.build, notify=notify, trace=trace)
        self._texts = RunTexts()
        metrics.watch(lambda: self._queue.depth, lambda: self._queue.age_seconds)

    def work(self, stop: asyncio.Event) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """Names and coroutines of all concurrent tasks."""
        yield WATCHES, self._watch(stop)
        for number in range(self._settings.workers):
            yield f"worker {number}", self._work()
        yield "resync", self._resync.repeat()
        yield "series", self._refresh_series()
        if self._settings.build.sends_notifications:
            yield "notifications", self._notifications.run()
        if self._settings.progress is not ProgressSource.OFF:
            source = self._settings.progress
            yield "progress", read_progress(self._store, self._book, self._api, source, self._queue.add)

    def liveness_problem(self) -> str | None:
        """Why the liveness probe fails: watches that stopped delivering; None while all deliver."""
        return self._resync.liveness_problem

    def readiness_problem(self) -> str | None:
        """Why the readiness probe fails: the first listing is not complete; None afterwards."""
        return None if self._resync.rounds else "the first listing is not complete yet\n"

    async def _watch(self, stop: asyncio.Event) -> None:
        await run_watches(
            self._store,
            self._queue.add,
            Transitions(self._metrics.transition_seconds.observe),
            self._metrics.record_event,
            namespaces=self._settings.namespaces,
            stop=stop,
        )

    async def _work(self) -> None:
        """Reconcile once every kind has been listed: an unknown Job would be created twice."""
        await self._resync.complete.wait()
        await self._queue.work(self._worker.work)

    async def _refresh_series(self) -> None:
        """Compute the runs' series ahead of scrapes: after a start a scrape of thousands of runs would time out."""
        await self._resync.complete.wait()
        while True:
            await self._compute_series(pause=SERIES_PAUSE_SECONDS)
            await asyncio.sleep(SERIES_EVERY_SECONDS)

    async def write_metrics(self) -> bytes:
        """Everything in the exposition format, with the series of runs as far as they could be computed in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SCRAPE_SECONDS):
                await self._compute_series(pause=0)
        self._texts.keep(self._store.runs())
        return generate_latest(self._metrics.registry) + self._texts.text()

    async def _compute_series(self, *, pause: float) -> None:
        """Compute the series of every run that has changed; other work goes on between two runs."""
        for key in self._store.runs():
            stamp = (self._store.version(Kind.RUN, key), self._live(key))
            if not self._texts.is_current(key, stamp):
                self._note_series(key, stamp)
                await asyncio.sleep(pause)

    def _note_series(self, key: RunKey, stamp: tuple[object, tuple[LiveMetrics, ...]]) -> None:
        """Compute a run's series; a fault of dynalign's own costs that run its series and nothing else."""
        try:
            self._texts.note(key, stamp, self._known_run(key, stamp[1]))
        except Exception:  # what it may be is not known
            log.exception("the series of run %s in namespace %s cannot be computed", key.name, key.namespace)
            self._texts.note(key, stamp, None)

    def _live(self, key: RunKey) -> tuple[LiveMetrics, ...]:
        """The latest readings of the pods of a run's living Jobs."""
        names = (job["metadata"]["name"] for job in self._store.living_objects_of_run(Kind.JOB, key))
        groups = (self._book.live.get(RunKey(key.namespace, name), ()) for name in names)
        return tuple(reading for readings in groups for reading in readings)

    def _known_run(self, key: RunKey, live: tuple[LiveMetrics, ...]) -> KnownRun | None:
        """Exported values of a run; None for one that cannot be read, which then has no series."""
        try:
            run = self._cluster.runs.read(key)
        except InvalidRunError:
            return None
        return None if run is None else KnownRun(key, run.status, run.spec, live)
