"""Reads the running stages' /metrics: all pods side by side, the silent ones less and less often."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final

import aiohttp

from dynalign_contract.stages import SIDE_STAGES
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.owners import jobs_of_run, pods_by_job
from dynalign_operator.clusters.kubernetes.progress_book import ProgressBook
from dynalign_operator.clusters.kubernetes.progress_source import ProgressSource, Read, open_source
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.clusters.stage_metrics import LiveMetrics, parse_metrics
from dynalign_operator.manifests.labels import STAGE
from dynalign_operator.manifests.objects import KubernetesObject

log = logging.getLogger("dynalign.progress")

READ_EVERY_SECONDS: Final = 10.0
AT_ONCE: Final = 100
"""Pods that are asked at the same time; a session of aiohttp has as many connections."""
AT_ONCE_BY_PROXY: Final = 25
"""Pods that are asked at the same time through the API server, whose connections the reconciler shares."""
_LONGEST_PAUSE: Final = 32
"""Rounds after which a pod that never answers is asked again."""


@dataclass(frozen=True)
class _Asked:
    """A pod whose turn it is."""

    run: RunKey
    job: RunKey
    uid: str
    pod: KubernetesObject


@dataclass
class Silence:
    """How often each pod has not answered in a row, and when it is asked again."""

    round: int = 0
    """Rounds so far."""
    _missed: dict[str, int] = field(default_factory=dict)
    _due: dict[str, int] = field(default_factory=dict)

    def is_due(self, uid: str) -> bool:
        """Whether a pod is to be asked in this round."""
        return self._due.get(uid, 0) <= self.round

    def missed(self, uid: str) -> int:
        """Times in a row that a pod has not answered."""
        return self._missed.get(uid, 0)

    def note(self, uid: str, *, answered: bool) -> None:
        """Remember how a question ended: the pause doubles with every one that did not."""
        if answered:
            self._missed.pop(uid, None)
            self._due.pop(uid, None)
            return
        missed = self._missed[uid] = self.missed(uid) + 1
        self._due[uid] = self.round + min(1 << min(missed, 10), _LONGEST_PAUSE)

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all other pods."""
        kept = set(uids)
        for gone in self._missed.keys() - kept:
            self.note(gone, answered=True)


class ProgressReader:
    """Reads the progress of all runs, round by round."""

    def __init__(
        self,
        store: Store,
        book: ProgressBook,
        read: Read,
        enqueue: Callable[[RunKey], None],
        clock: Callable[[], datetime],
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._store, self._book, self._read, self._enqueue, self._clock = store, book, read, enqueue, clock
        self._at_once = at_once
        self._silence = Silence()

    async def read_round(self) -> None:
        """Ask every pod whose turn it is; each run of a stage that says something new is to be looked at."""
        self._silence.round += 1
        pods = list(self._pods())
        turn = _in_turn([asked for asked in pods if self._silence.is_due(asked.uid)], self._silence.missed)
        gate = asyncio.Semaphore(self._at_once)
        by_job: dict[RunKey, list[_Asked]] = defaultdict(list)
        for asked in turn:
            by_job[asked.job].append(asked)
        present: dict[RunKey, list[str]] = defaultdict(list)
        for asked in pods:
            present[asked.job].append(asked.uid)
        questions = {asked.uid: asyncio.create_task(self._ask(asked, gate)) for asked in turn}
        await asyncio.gather(*(self._note(job, group, questions, present[job]) for job, group in by_job.items()))
        self._book.keep(asked.job for asked in pods)
        self._silence.keep(asked.uid for asked in pods)

    def _pods(self) -> Iterator[_Asked]:
        """The running pods that the runs' own Jobs control, no more than a Job has at a time, side stages left out.

        A pod in its node's own network is left out: asking it would ask the node.
        """
        for run in self._store.runs():
            jobs = jobs_of_run(self._store, run, self._store.living_objects_of_run(Kind.JOB, run))
            pods = pods_by_job(self._store.living_objects_of_run(Kind.POD, run), jobs) if jobs else {}
            for job in jobs:
                if job["metadata"]["labels"].get(STAGE) in SIDE_STAGES:
                    continue
                name, most = job["metadata"]["name"], int(job["spec"].get("parallelism") or 1)
                running = [pod for pod in pods[name] if _is_askable(pod)]
                for pod in running[:most]:
                    yield _Asked(run, RunKey(run.namespace, name), pod["metadata"].get("uid", ""), pod)

    async def _ask(self, asked: _Asked, gate: asyncio.Semaphore) -> LiveMetrics | None:
        async with gate:
            try:
                reading = parse_metrics((await self._read(asked.pod)).decode())
            except (ClusterError, OSError, TimeoutError, aiohttp.ClientError, ValueError, KeyError):
                reading = None
        self._silence.note(asked.uid, answered=reading is not None)
        return reading

    async def _note(
        self,
        job: RunKey,
        group: list[_Asked],
        questions: dict[str, asyncio.Task[LiveMetrics | None]],
        present: list[str],
    ) -> None:
        """Note a Job's answers as soon as its own pods have been asked, whatever the others do."""
        answers = {asked.uid: await questions[asked.uid] for asked in group}
        readings = {uid: reading for uid, reading in answers.items() if reading is not None}
        if self._book.note(job, readings, present, self._clock()):
            self._enqueue(group[0].run)


def _is_askable(pod: KubernetesObject) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and not (pod.get("spec") or {}).get("hostNetwork")


def _in_turn(pods: Iterable[_Asked], missed: Callable[[str], int]) -> list[_Asked]:
    """Order pods: those that answered come first, and among equals the namespaces take turns."""
    by_misses: dict[int, dict[str, list[_Asked]]] = defaultdict(lambda: defaultdict(list))
    for asked in pods:
        by_misses[missed(asked.uid)][asked.run.namespace].append(asked)
    return [
        asked
        for _, namespaces in sorted(by_misses.items())
        for round_ in zip_longest(*namespaces.values())
        for asked in round_
        if asked is not None
    ]


async def read_progress(
    store: Store, book: ProgressBook, api: KubeApi, source: ProgressSource, enqueue: Callable[[RunKey], None]
) -> None:
    """Read the progress of all runs every READ_EVERY_SECONDS, until cancelled."""
    at_once = AT_ONCE_BY_PROXY if source is ProgressSource.API_PROXY else AT_ONCE
    async with open_source(source, api) as read:
        reader = ProgressReader(store, book, read, enqueue, lambda: datetime.now(UTC), at_once=at_once)
        while True:
            try:
                await reader.read_round()
            except Exception:
                log.exception("the stages' progress could not be read; again in %d s", READ_EVERY_SECONDS)
            await asyncio.sleep(READ_EVERY_SECONDS)
