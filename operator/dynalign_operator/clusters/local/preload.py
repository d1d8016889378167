"""Stages as forks of one process that has imported what they need: seconds saved, on machines without a GPU."""

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL
from typing import IO, Final, cast

from dynalign_contract.pod_paths import Variable
from dynalign_contract.preload import StageEvent, StageRequest
from dynalign_operator.clusters.local.commands import STAGE_MODULE, Command
from dynalign_operator.clusters.local.processes import Process, signal_group, start_process

_SERVER_MODULE: Final = "dynalign_trainer.preload_server"
_STAGE: Final = (sys.executable, "-m", STAGE_MODULE)
_GPUS: Final = ("/dev/nvidiactl", "/dev/kfd")


class PreloadServer:
    """Starts the processes of a run, the stages as forks of a preload server that lives until `close`."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._stage: ForkedStage | None = None

    def start(self, command: Command, *, folder: Path, log: Path, is_apart: bool = False) -> Process:
        """Start a group leader in `folder`, its output appended to `log`.

        `is_apart`: the stage runs beside others, or it may talk to a model hub, which the server has forbidden to all
        that it has imported.
        """
        is_stage = command.arguments[: len(_STAGE)] == _STAGE and not is_apart
        is_busy = self._stage is not None and self._stage.poll() is None
        if not is_stage or is_busy or not can_fork():
            return start_process(command, folder=folder, log=log)
        request = StageRequest(
            arguments=command.arguments[len(_STAGE) :],
            environment={**command.environment, Variable.ASKED_AT: str(time.time())},
            folder=str(folder),
            log=str(log),
        )
        self._stage = ForkedStage(self._open(command, folder, log), request)
        return self._stage

    def close(self) -> None:
        """End the server. A stage that still runs is left to the caller."""
        if self._server is not None:
            signal_group(self._server, SIGKILL)
            self._server.communicate()
            self._server = None

    def _open(self, command: Command, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """The server's process; its output goes to the log of the stage that waits for it, until it is ready."""
        if self._server is None or self._server.poll() is not None:
            self.close()
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", _SERVER_MODULE],
                    env=dict(command.environment),
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    start_new_session=True,
                )
        return self._server


class ForkedStage:
    """A stage that the preload server forks off, with the interface of `Popen`."""

    def __init__(self, server: subprocess.Popen[bytes], request: StageRequest) -> None:
        self._server = server
        self._unread = b""
        self.pid = server.pid
        """Leader of the process group to signal: the server while it gets ready, then the stage."""
        self.returncode: int | None = None
        """Exit code, or -n after signal n."""
        self._events = cast("IO[bytes]", server.stdout).fileno()
        requests = cast("IO[bytes]", server.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has just ended, which `poll` tells
            requests.write(f"{request.to_json()}\n".encode())
            requests.flush()

    def poll(self) -> int | None:
        """The return code if the stage has ended."""
        self._listen(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the stage's end. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(_SERVER_MODULE, timeout or 0.0)
            self._listen(left)
        return self.returncode

    def _listen(self, seconds: float | None) -> None:
        """Read the server's events, waiting at most so many seconds for the first."""
        while self.returncode is None and select.select([self._events], [], [], seconds)[0]:
            said = os.read(self._events, 1 << 16)
            if not said:
                self._lose_server()
                return
            *lines, self._unread = (self._unread + said).split(b"\n")
            for line in lines:
                event = StageEvent.model_validate_json(line)
                self.pid, self.returncode = event.pid, event.returncode
            seconds = 0.0

    def _lose_server(self) -> None:
        """The server has ended before the stage, or before it began: end the stage too, which nobody watches."""
        code = self._server.wait()
        signal_group(self, SIGKILL)
        self.returncode = code if self.pid == self._server.pid else -SIGKILL


def can_fork() -> bool:
    """Whether stages can be forked here: on Linux, and where no stage will initialise a GPU."""
    return sys.platform == "linux" and not has_gpus()


def has_gpus() -> bool:
    """Whether this machine has GPUs that the stages may use."""
    return any(Path(device).exists() for device in _GPUS)
