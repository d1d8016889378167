"""What a node says while it cannot reach node 0 of its gang: torchrun itself waits without a word."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from dynalign_contract.gang import WaitCause, WaitMetric
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.runtime.telemetry import Telemetry

log = logging.getLogger("dynalign.train")

_CONNECT_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 5.0
_TELL_EVERY_SECONDS: Final = 30.0
_REMEDY: Final = {
    WaitCause.NAME: "the name is not known: look at node 0's pod, the headless Service and the cluster's DNS",
    WaitCause.REFUSED: "node 0 does not listen yet: look at its log",
    WaitCause.SILENT: "nothing answers: look at network policies, and at firewalls that drop forwarded packets",
}

Connect = Callable[[tuple[str, int]], None]


def connect(address: tuple[str, int]) -> None:
    """Connect to an address and leave. Raises OSError."""
    with socket.create_connection(address, timeout=_CONNECT_SECONDS):
        return


@contextlib.contextmanager
def telling_of_waits(gang: Gang, telemetry: Telemetry, *, try_again: float = _AGAIN_SECONDS) -> Iterator[None]:
    """Try node 0's address from a thread, and say in the log and at /metrics since when it cannot be reached.

    The wait itself is torchrun's, which goes on as soon as node 0 can be reached; nothing ends here.
    """
    if gang.rank == 0:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_try, args=(gang, telemetry, ended, try_again), daemon=True, name="gang-wait")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_CONNECT_SECONDS + 1)


def _try(gang: Gang, telemetry: Telemetry, ended: threading.Event, try_again: float) -> None:
    host, _, port = gang.coordinator.rpartition(":")
    since, told = time.time(), -_TELL_EVERY_SECONDS
    while not ended.is_set():
        try:
            connect((host, int(port)))
        except OSError as error:
            cause = _cause_of(error)
            for metric, value in ((WaitMetric.NODE, gang.rank), (WaitMetric.CAUSE, cause), (WaitMetric.SINCE, since)):
                telemetry.metric(metric, value)
            if time.monotonic() - told >= _TELL_EVERY_SECONDS:
                told = time.monotonic()
                at = time.strftime("%H:%M:%S", time.gmtime(since))
                log.warning(
                    "node %d has waited for node 0 at %s since %s UTC (%s): %s; it goes on once it can connect",
                    *(gang.rank, gang.coordinator, at, error, _REMEDY[cause]),
                )
            ended.wait(try_again)
        else:
            telemetry.metric(WaitMetric.SINCE, 0.0)
            return


def _cause_of(error: OSError) -> WaitCause:
    if isinstance(error, socket.gaierror):
        return WaitCause.NAME
    return WaitCause.REFUSED if isinstance(error, ConnectionRefusedError) else WaitCause.SILENT
