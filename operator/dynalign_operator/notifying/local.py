"""The notifier of `dynalign run`: a thread with an event loop of its own, for the loop of the run blocks."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.manifests.secrets import notify_variable
from dynalign_operator.notifying.notifier import KeyNotFoundError, Notifier
from dynalign_operator.notifying.sender import open_sender
from dynalign_operator.planning.notifications import DueNotification

LAST_SECONDS: Final = 10.0
"""What a run that ends gives its last notifications."""


class LocalNotifier:
    """Sends for one run; made by `open_local_notifier`."""

    def __init__(self, key: RunKey, read_run: Callable[[], AlignmentRun], deliveries: Deliveries) -> None:
        self._key, self._read_run, self._deliveries = key, read_run, deliveries
        self._loop = asyncio.new_event_loop()
        self._considered = asyncio.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        self._thread.start()

    def consider(self) -> None:
        """Begin to send what is due. Never waits."""
        self._loop.call_soon_threadsafe(self._considered.set)

    def finish(self) -> None:
        """Send what is due now, for at most ten seconds, and end."""
        self._closing = True
        self.consider()
        self._thread.join(LAST_SECONDS + 5)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with open_sender(loopback=True) as sender:
            notifier = Notifier(sender, lambda _: self._read_run(), _read_key, self._deliveries, lambda _: None)
            while True:
                await self._considered.wait()
                self._considered.clear()
                closing = self._closing
                notifier.consider(self._key)
                if closing:
                    await notifier.drain(LAST_SECONDS)
                    return


@contextmanager
def open_local_notifier(
    key: RunKey, read_run: Callable[[], AlignmentRun], deliveries: Deliveries
) -> Iterator[Callable[[], None]]:
    """What to call when the run has changed. The end waits for what is due, for a few seconds at most."""
    notifier = LocalNotifier(key, read_run, deliveries)
    try:
        yield notifier.consider
    finally:
        notifier.finish()


async def _read_key(_run: AlignmentRun, due: DueNotification) -> str:
    variable = notify_variable(due.index)
    key = os.environ.get(variable, "")
    if not key:
        raise KeyNotFoundError(f"{variable} is not set")
    return key
