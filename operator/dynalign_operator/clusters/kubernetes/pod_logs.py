"""Logs of a run's pods through the API server: all shards, and every attempt that follows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dynalign_operator.clusters.kubernetes.api import KubeApi, RefusedError
from dynalign_operator.clusters.kubernetes.paths import PODS, object_path
from dynalign_operator.clusters.run_source import LogLine, LogOrigin
from dynalign_operator.manifests.pod import CONTAINER

LOOK_EVERY_SECONDS: Final = 1.0
_LINES_AHEAD: Final = 1000
"""Lines that are read before they are printed."""
_TIMESTAMP_END: Final = " "
_CUT: Final = 0
"""Status of a request whose connection was cut."""
_NO_LOG: Final = frozenset({400, 404, 500})
"""The container cannot be read yet, the pod is gone, or its node has no log of it any more."""


@dataclass(frozen=True)
class LoggingPod:
    """A pod whose container runs or has ended, and so has a log."""

    namespace: str
    name: str
    origin: LogOrigin
    has_ended: bool


@dataclass(frozen=True)
class PodsNow:
    """What is there to be read at one moment."""

    pods: Sequence[LoggingPod]
    is_last: bool
    """Whether no pod will come after these."""


Look = Callable[[], Awaitable[PodsNow]]


async def read_pods(api: KubeApi, pods: Sequence[LoggingPod], tail: int | None) -> AsyncIterator[LogLine]:
    """Whole logs, one pod after the other. Raises RefusedError."""
    query: dict[str, str | int] = {"container": CONTAINER, **({} if tail is None else {"tailLines": tail})}
    for pod in pods:
        async for line in api.read_lines(object_path(PODS, pod.namespace, pod.name, "log", query=query)):
            yield LogLine(pod.origin, line)


async def follow_pods(api: KubeApi, look: Look, tail: int | None) -> AsyncIterator[LogLine]:
    """Lines of all pods as they come, later pods included, until `look` says that there are no more.

    Raises RefusedError and what `look` raises.
    """
    lines: asyncio.Queue[LogLine | None] = asyncio.Queue(_LINES_AHEAD)
    follower = _Follower(api, look, lines, tail)
    task = asyncio.create_task(follower.work())
    try:
        while (line := await lines.get()) is not None:
            yield line
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class _Follower:
    """Starts a stream for every pod, and ends when all have ended."""

    api: KubeApi
    look: Look
    lines: asyncio.Queue[LogLine | None]
    tail: int | None
    _streams: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _latest: dict[str, str] = field(default_factory=dict)
    """Pod -> time stamp of its last line."""
    _read: set[str] = field(default_factory=set)
    """Pods whose last stream began after their end, and is whole."""

    async def work(self) -> None:
        """Look for pods again and again."""
        try:
            while True:
                now = await self.look()
                for pod in now.pods:
                    self._start(pod)
                if now.is_last and all(pod.name in self._read for pod in now.pods) and self._are_done():
                    return
                await asyncio.sleep(LOOK_EVERY_SECONDS)
                self._raise_errors()
        finally:
            for stream in self._streams.values():
                stream.cancel()
            await asyncio.gather(*self._streams.values(), return_exceptions=True)
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # once it is cancelled nothing takes lines any more
                await self.lines.put(None)

    def _are_done(self) -> bool:
        self._raise_errors()
        return all(stream.done() for stream in self._streams.values())

    def _raise_errors(self) -> None:
        for stream in self._streams.values():
            if stream.done():
                stream.result()

    def _start(self, pod: LoggingPod) -> None:
        """Begin a stream, or begin it again where a connection was cut before the pod had ended."""
        stream = self._streams.get(pod.name)
        if pod.name in self._read or (stream is not None and not stream.done()):
            return
        self._streams[pod.name] = asyncio.create_task(self._stream(pod))

    async def _stream(self, pod: LoggingPod) -> None:
        """Put a pod's lines into the queue; those that an earlier stream has brought are left out."""
        latest = self._latest.get(pod.name, "")
        query: dict[str, str | int] = {"container": CONTAINER, "follow": "true", "timestamps": "true"}
        if latest:
            query["sinceTime"] = latest
        elif self.tail is not None:
            query["tailLines"] = self.tail
        try:
            async for line in self.api.read_lines(object_path(PODS, pod.namespace, pod.name, "log", query=query)):
                stamp, _, text = line.partition(_TIMESTAMP_END)
                if latest and stamp <= latest:
                    continue
                self._latest[pod.name] = stamp
                await self.lines.put(LogLine(pod.origin, text))
        except RefusedError as error:
            if error.status == _CUT:
                return
            if error.status not in _NO_LOG:
                raise
        if pod.has_ended:
            self._read.add(pod.name)
