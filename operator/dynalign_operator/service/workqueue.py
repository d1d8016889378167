"""A work queue as client-go has it: a key waits once, is worked on by one worker at a time, and comes back when due."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

log = logging.getLogger("dynalign.queue")

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 60.0


class PutOffError(Exception):
    """The work could not be done now, for a reason that is known and said elsewhere: no traceback is worth it.

    `obstacle` names what is in the way, if that is known: another obstacle means that the one before is gone, and
    pauses begin anew.
    """

    def __init__(self, message: str, obstacle: str = "") -> None:
        super().__init__(message)
        self.obstacle = obstacle


class WorkQueue(Generic[K]):
    """Keys that wait for work. Use it within one event loop."""

    def __init__(self) -> None:
        self._ready: dict[K, float] = {}
        """Keys that wait for a worker, the longest waiting first -> since when, in the loop's time."""
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._due: list[tuple[float, int, K]] = []
        self._wanted: dict[K, float] = {}
        """The earliest time at which each delayed key is due; later entries of the heap are stale."""
        self._failures: dict[K, int] = {}
        self._obstacles: dict[K, str] = {}
        """What was in the way of each key's work the last time."""
        self._order = 0
        self._changed = asyncio.Event()
        self.last_done = asyncio.get_event_loop().time()
        """When a piece of work ended last, in the loop's time."""

    def add(self, key: K) -> None:
        """Work on this key soon; once, however often it is added meanwhile."""
        if key in self._working:
            self._again.add(key)
        else:
            self._ready.setdefault(key, asyncio.get_running_loop().time())
        self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on this key in so many seconds, or earlier if somebody asks for it."""
        at = asyncio.get_running_loop().time() + max(0.0, seconds)
        if at < self._wanted.get(key, float("inf")):
            self._wanted[key] = at
            self._order += 1
            heapq.heappush(self._due, (at, self._order, key))
            self._changed.set()

    @property
    def depth(self) -> int:
        """Keys that are ready and wait for a worker."""
        return len(self._ready)

    @property
    def age_seconds(self) -> float:
        """How long the longest waiting key has waited for a worker; 0 when none waits."""
        now = asyncio.get_running_loop().time()
        return next((now - since for since in self._ready.values()), 0.0)

    async def work(self, handle: Callable[[K], Awaitable[None]]) -> None:
        """Work until cancelled. A key whose work raises comes back after a pause that doubles, at most a minute."""
        while True:
            key = await self._take()
            try:
                await handle(key)
                self._failures.pop(key, None)
                self._obstacles.pop(key, None)
            except PutOffError as error:
                self._note_obstacle(key, error.obstacle)
                failures, pause = self._put_off(key)
                log.info("%s is put off for the %d. time, for %.1f s: %s", key, failures, pause, error)
            except Exception:
                failures, pause = self._put_off(key)
                log.exception("%s failed %d times; again in %.1f s", key, failures, pause)
            finally:
                self._finish(key)

    def _note_obstacle(self, key: K, obstacle: str) -> None:
        """Begin the pauses anew when something else is in the way than the last time that was known."""
        if obstacle and self._obstacles.get(key, obstacle) != obstacle:
            self._failures.pop(key, None)
        if obstacle:
            self._obstacles[key] = obstacle

    def _put_off(self, key: K) -> tuple[int, float]:
        """Have the key come back after a pause; how often it has failed in a row, and the pause in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS)
        self.add_after(key, pause)
        return failures, pause

    async def _take(self) -> K:
        loop = asyncio.get_running_loop()
        while True:
            self._release(loop.time())
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._working.add(key)
                return key
            self._changed.clear()
            timeout = None if not self._due else max(0.0, self._due[0][0] - loop.time())
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except TimeoutError:
                continue

    def _release(self, now: float) -> None:
        """Make ready what is due."""
        while self._due and self._due[0][0] <= now:
            at, _, key = heapq.heappop(self._due)
            if self._wanted.get(key) == at:
                del self._wanted[key]
                self.add(key)

    def _finish(self, key: K) -> None:
        self._working.discard(key)
        self.last_done = asyncio.get_running_loop().time()
        if key in self._again:
            self._again.discard(key)
            self.add(key)
