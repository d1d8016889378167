"""A check of digests that goes on beside a stage's work."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait


class Verification:
    """A check in a thread of its own, which does not hold up a process that ends."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Begin with the check. It raises CorruptArtifactError for what is not as its manifest says."""
        self._result: Future[None] = Future()
        threading.Thread(target=self._run, args=(check,), daemon=True, name="verification").start()

    def has_ended(self, timeout: float) -> bool:
        """Whether the check has ended well, after a wait of `timeout` seconds at most; raises what it has raised."""
        wait([self._result], timeout)
        if not self._result.done():
            return False
        self._result.result()
        return True

    def _run(self, check: Callable[[], None]) -> None:
        try:
            check()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the check gets it
            self._result.set_exception(error)
        else:
            self._result.set_result(None)
