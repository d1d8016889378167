"""Processes of a stage's engines: each with its share of the devices, and none left when the stage ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any, Final

from dynalign_contract.console import print_error_output
from dynalign_contract.errors import EngineLostError
from dynalign_trainer.models.device_shares import Share
from dynalign_trainer.runtime.compile_cache import own_caches

_END_SECONDS: Final = 3.0
"""Time for an engine to end by itself once nobody speaks to it."""
_KEPT_LINES: Final = 20
_TOLD_LINES: Final = 3
_PROGRAM: Final = "dynalign_trainer.models.replica"


@dataclass
class ReplicaProcess:
    """One engine's process, and the connection to it."""

    name: str
    """For people: `engine 2 of 8`."""
    process: "subprocess.Popen[str]"
    connection: "Connection[Any, Any]"
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    """Lines that it has written last."""
    reader: threading.Thread | None = None

    def lost(self) -> EngineLostError:
        """The error for a process that has ended although nobody asked it to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_END_SECONDS)
        self._finish_reading()
        words = " | ".join(list(self.last)[-_TOLD_LINES:]) or "none"
        return EngineLostError(
            f"{self.name} of this stage (process {self.process.pid}) {_ending(self.process.poll())}. Its last words: "
            f"{words}. The next attempt goes on from the finished parts; if it ends alike, lower spec.engine.replicas, "
            "or raise the memory of the stage's pods in spec.stages."
        )

    def end(self, deadline: float) -> None:
        """Wait until a process has ended to which the connection is closed, and kill it at this monotonic time."""
        try:
            self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._finish_reading()

    def _finish_reading(self) -> None:
        if self.reader is not None:
            self.reader.join(timeout=_END_SECONDS)


def start_processes(shares: Sequence[Share]) -> list[ReplicaProcess]:
    """Start a process for each share, all at once; each waits for its plan."""
    started: list[ReplicaProcess] = []
    try:
        for index, share in enumerate(shares):
            caches = own_caches(os.environ, f"engine-{index}") if index else {}  # the first one's are passed on
            started.append(_start(f"engine {index + 1} of {len(shares)}", share, caches))
    except BaseException:
        end_processes(started)
        raise
    return started


def end_processes(processes: Sequence[ReplicaProcess]) -> None:
    """Close the connections and see to it that the processes end, by SIGKILL if need be."""
    for process in processes:
        process.connection.close()
    deadline = time.monotonic() + _END_SECONDS
    for process in processes:
        process.end(deadline)


def _start(name: str, share: Share, caches: Mapping[str, str]) -> ReplicaProcess:
    """Start a process; its output goes to this one's log, each line with its name."""
    ours, theirs = Pipe()
    command = [sys.executable, "-m", _PROGRAM, "--stage", str(os.getpid()), "--connection", str(theirs.fileno())]
    process = subprocess.Popen(
        [*command, "--cores", ",".join(map(str, share.cores))],
        env={**os.environ, **share.environment, **caches},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    started = ReplicaProcess(name, process, ours)
    started.reader = threading.Thread(target=_relay, args=(started,), daemon=True, name=f"output of {name}")
    started.reader.start()
    return started


def _relay(process: ReplicaProcess) -> None:
    stream: IO[str] | None = process.process.stdout
    for line in stream or ():
        print_error_output(f"[{process.name}] {line}")
        if line.strip():
            process.last.append(line.strip())


def _ending(code: int | None) -> str:
    if code is None:
        return "has closed its connection"
    if code >= 0:
        return f"has ended with exit code {code}"
    return f"was killed by signal {-code} ({signal.Signals(-code).name}; signal 9 often means too little memory)"
