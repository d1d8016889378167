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

from dynalign_contract.host import HostAnswer, HostOrder
from dynalign_operator.clusters.local.commands import STAGE_MODULE, Command
from dynalign_operator.clusters.local.processes import Process, signal_group, start_process

_HOST_MODULE: Final = "dynalign_trainer.host"
_STAGE: Final = (sys.executable, "-m", STAGE_MODULE)
_GPUS: Final = ("/dev/nvidiactl", "/dev/kfd")


class StageHost:
    """Starts the processes of a run, the stages as forks of a host that lives until `close`."""

    def __init__(self) -> None:
        self._host: subprocess.Popen[bytes] | None = None
        self._stage: HostedStage | None = None

    def start(self, command: Command, *, folder: Path, log: Path, is_online: bool = False) -> Process:
        """Start a group leader in `folder`, its output appended to `log`.

        `is_online`: it may talk to a model hub, which the host has forbidden to all that it has imported.
        """
        is_stage = command.arguments[: len(_STAGE)] == _STAGE and not is_online
        is_busy = self._stage is not None and self._stage.poll() is None
        if not is_stage or is_busy or not can_fork():
            return start_process(command, folder=folder, log=log)
        order = HostOrder(
            arguments=command.arguments[len(_STAGE) :],
            environment=dict(command.environment),
            folder=str(folder),
            log=str(log),
        )
        self._stage = HostedStage(self._open(command, folder, log), order)
        return self._stage

    def close(self) -> None:
        """End the host. A stage that still runs is left to whoever started it."""
        if self._host is not None:
            signal_group(self._host, SIGKILL)
            self._host.communicate()
            self._host = None

    def _open(self, command: Command, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """The host; its own words, until it is ready, go to the log of the stage that waits for it."""
        if self._host is None or self._host.poll() is not None:
            self.close()
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                self._host = subprocess.Popen(
                    [sys.executable, "-m", _HOST_MODULE],
                    env=dict(command.environment),
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    start_new_session=True,
                )
        return self._host


class HostedStage:
    """A stage that a host forks off, as `Popen` would show it."""

    def __init__(self, host: subprocess.Popen[bytes], order: HostOrder) -> None:
        self._host = host
        self._unread = b""
        self.pid = host.pid
        """Leader of the process group to signal: the host while it gets ready, then the stage."""
        self.returncode: int | None = None
        """Exit code, or -n after signal n."""
        self._answers = cast("IO[bytes]", host.stdout).fileno()
        orders = cast("IO[bytes]", host.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has just ended, which `poll` tells
            orders.write(f"{order.to_json()}\n".encode())
            orders.flush()

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
                raise subprocess.TimeoutExpired(_HOST_MODULE, timeout or 0.0)
            self._listen(left)
        return self.returncode

    def _listen(self, seconds: float | None) -> None:
        """Read what the host says, waiting so long for it."""
        while self.returncode is None and select.select([self._answers], [], [], seconds)[0]:
            said = os.read(self._answers, 1 << 16)
            if not said:
                self._lose_host()
                return
            *lines, self._unread = (self._unread + said).split(b"\n")
            for line in lines:
                answer = HostAnswer.model_validate_json(line)
                self.pid, self.returncode = answer.pid, answer.returncode
            seconds = 0.0

    def _lose_host(self) -> None:
        """The host has ended before the stage has, or before it began: the stage must not go on unseen."""
        code = self._host.wait()
        signal_group(self, SIGKILL)
        self.returncode = code if self.pid == self._host.pid else -SIGKILL


def can_fork() -> bool:
    """Whether stages can be forked here: on Linux, and where no stage will initialise a GPU."""
    return sys.platform == "linux" and not any(Path(device).exists() for device in _GPUS)
