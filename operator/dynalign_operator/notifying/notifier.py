"""Sends what is due of any number of runs, each notification in a task of its own, until it is acknowledged.

A server that hangs or fails takes time of its own notification alone: at most `_PER_RUN` requests of a run and
`_AT_ONCE` of all are under way, and no reconcile waits for any. What is over is left in `Deliveries`, from which the
planner puts it into the status; a notification whose cause has passed is not sent any more.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

from dynalign_operator.api.notifications import Notification, NotificationOutcome, NotifyEvent
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.notifying.message import BadKeyError, build_body, build_headers
from dynalign_operator.notifying.sender import Answer, Reply
from dynalign_operator.planning.notifications import STALLED_FOR, DueNotification, due_notifications

log = logging.getLogger("dynalign.notifier")

GIVE_UP_AFTER: Final = timedelta(hours=24)
_PAUSES: Final = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0)
"""Seconds between attempts; the last one repeats."""
_PER_RUN: Final = 2
_AT_ONCE: Final = 32


class KeyNotFoundError(Exception):
    """The key of a signature cannot be read; the message says why."""


class Sender(Protocol):
    """Posts once."""

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        """The server's answer."""
        ...


ReadRun = Callable[[RunKey], AlignmentRun | None]
ReadKey = Callable[[AlignmentRun, DueNotification], Awaitable[str]]
"""The key that a webhook's signature is made with. Raises KeyNotFoundError."""
Sleep = Callable[[float], Awaitable[None]]


class Notifier:
    """Call `consider` for a run that may have something to tell; use it within one event loop."""

    def __init__(
        self,
        sender: Sender,
        read_run: ReadRun,
        read_key: ReadKey,
        deliveries: Deliveries,
        wake: Callable[[RunKey], None],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._sender, self._read_run, self._read_key = sender, read_run, read_key
        self._deliveries, self._wake, self._clock, self._sleep = deliveries, wake, clock, sleep
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._of_run: defaultdict[RunKey, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_PER_RUN))

    def consider(self, key: RunKey) -> None:
        """Begin to send what is due of a run and not under way."""
        run = self._read_run(key)
        if run is None:
            self._of_run.pop(key, None)
            return
        for due in due_notifications(run):
            if due.id not in self._tasks and not self._deliveries.has(key, due.id):
                task = asyncio.create_task(self._deliver(key, due.id), name=f"notification {due.id}")
                self._tasks[due.id] = task
                task.add_done_callback(partial(self._end, due.id))

    async def drain(self, seconds: float) -> None:
        """Give what is under way so much time, and stop what is left."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await self.close()

    async def close(self) -> None:
        """Stop everything that is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("notification %s failed", name, exc_info=error)

    async def _deliver(self, key: RunKey, name: str) -> None:
        attempt = 0
        while True:
            run = self._read_run(key)
            due = None if run is None else next((d for d in due_notifications(run) if d.id == name), None)
            if run is None or due is None:
                return
            early = self._seconds_early(due)
            if early > 0:
                await self._sleep(early)
                continue
            reply = await self._attempt(key, run, due)
            outcome = self._outcome(due, reply)
            if outcome is not None:
                why = "" if outcome is NotificationOutcome.DELIVERED else reply.why[:512]
                over = Notification(
                    id=name, event=due.occurrence.event, outcome=outcome, time=self._clock(), message=why
                )
                self._deliveries.add(key, over)
                self._wake(key)
                return
            log.info("notification %s of %s is sent again later: %s", name, key, reply.why)
            await self._sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _attempt(self, key: RunKey, run: AlignmentRun, due: DueNotification) -> Reply:
        async with self._of_run[key], self._all:
            try:
                secret = await self._read_key(run, due)
                body = build_body(run, due)
                headers = build_headers(due, body, secret, self._clock())
            except (KeyNotFoundError, BadKeyError) as error:
                return Reply(Answer.AGAIN, str(error))
            return await self._sender.post(due.webhook.url, body, dict(headers))

    def _seconds_early(self, due: DueNotification) -> float:
        """How long a run has yet to be held before that is told."""
        if due.occurrence.event is not NotifyEvent.STALLED:
            return 0.0
        return (due.occurrence.time + STALLED_FOR - self._clock()).total_seconds()

    def _outcome(self, due: DueNotification, reply: Reply) -> NotificationOutcome | None:
        if reply.answer is Answer.ACKNOWLEDGED:
            return NotificationOutcome.DELIVERED
        is_old = self._clock() - due.occurrence.time > GIVE_UP_AFTER
        return NotificationOutcome.GAVE_UP if reply.answer is Answer.NEVER or is_old else None
