"""A single training process, forked off a stage that has imported what training needs.

`dynalign run` forks the stages of a machine without a GPU off one process with their libraries (`preload_server`). To
start torchrun and its worker as programs of their own would import these again, twice, which takes longer than some of
the trainings there.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Final

from dynalign_trainer.runtime.lifetime import die_with_parent

_POLL_SECONDS: Final = 0.05
ALONE: Final = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1"),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # nobody else has to find it
}
"""What torchrun tells a process that is the only one, as environment variables."""

_ALLOWED: Final = threading.Event()


def allow_fork() -> None:
    """Say that this process and its children may fork: it has no threads of OpenMP, and CUDA does not know it."""
    _ALLOWED.set()


def may_fork() -> bool:
    """Whether this process comes from one that has called `allow_fork`."""
    return _ALLOWED.is_set()


class ForkedWorker:
    """A child process with the part of `subprocess.Popen` that its caller uses."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.stdout: IO[str] = os.fdopen(output, errors="replace")
        self._code: int | None = None

    def poll(self) -> int | None:
        """Exit code, or -n after signal n; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("training", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code


def fork_worker(work: Callable[[], None], environment: Mapping[str, str]) -> ForkedWorker:
    """Fork a process that does `work` in a session of its own; it dies with this one, and its output is one pipe."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return ForkedWorker(pid, reading)
    os.close(reading)
    _work(work, environment, parent, writing)
    raise AssertionError("the child ends with its work")


def _work(work: Callable[[], None], environment: Mapping[str, str], parent: int, output: int) -> None:
    """In the child."""
    code = 1
    try:
        os.setsid()
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for target in (1, 2):
            os.dup2(output, target)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", buffering=1, errors="replace") for _ in range(2))
        os.environ.update({**environment, **ALONE})
        work()
        code = 0
    except SystemExit as ending:
        if isinstance(ending.code, str):
            sys.stderr.write(f"{ending.code}\n")
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - the output tells the parent what ended its worker
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
