"""Processes of a run on this machine: each stage in a process group of its own, and none left behind."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from dynalign_contract.preload import WORKDIR_VARIABLE
from dynalign_operator.clusters.local.commands import Command

_AFTER_KILL_SECONDS: Final = 10.0


class Process(Protocol):
    """A process that leads a group of its own; `subprocess.Popen` is one."""

    pid: int

    @property
    def returncode(self) -> int | Any:
        """Exit code, or -n after signal n; None while it runs."""

    def poll(self) -> int | None:
        """The return code if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""


def start_process(command: Command, *, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a group leader in `folder`, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command.arguments,
            env=dict(command.environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to a leader and all of its group; a group that has ended is no error."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def stop_process(process: Process, grace: float) -> int:
    """SIGTERM, `grace` seconds, SIGKILL; returns the exit code as a shell would."""
    signal_group(process, signal.SIGTERM)
    try:
        process.wait(timeout=grace)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        process.wait()
    signal_group(process, signal.SIGKILL)
    return exit_code(process)


def exit_code(process: Process) -> int:
    """Exit code of an ended process; 128 + n after signal n, as in Kubernetes."""
    code = int(process.returncode)
    return code if code >= 0 else 128 - code


def end_orphans(workdir: Path, grace: float) -> int:
    """End what a killed dynalign left running in this folder; returns how many processes that were.

    They are found by the mark in their environment, so a pid that the system has given to somebody else is safe. The
    topmost ones get SIGTERM and `grace` seconds to end the others well; then all get SIGKILL.
    """
    orphans = _marked(workdir)
    ids = {process.pid for process in orphans}
    topmost = [process for process in orphans if _parent(process) not in ids]
    for process in topmost:
        _send(process, signal.SIGTERM)
    psutil.wait_procs(topmost, timeout=grace)
    left = _marked(workdir)
    for process in left:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=_AFTER_KILL_SECONDS)
    return len(orphans)


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _marked(workdir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _mark(process) == str(workdir) and _is_alive(process)
    ]


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(WORKDIR_VARIABLE)
    except (psutil.Error, OSError):
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
