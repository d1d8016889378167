"""Starting the workers with torchrun, watching them, and leaving none behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from dynalign_contract.console import print_error_output
from dynalign_contract.errors import BadConfigError, StageError, TrainingFailedError
from dynalign_contract.settings import TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.runtime.failures import out_of_memory
from dynalign_trainer.train.processes.forked import ALONE, ForkedWorker, fork_worker
from dynalign_trainer.train.processes.tracebacks import find_error, is_consequence, killed, last_lines

log = logging.getLogger("dynalign.train")

_WORKER: Final = "dynalign_trainer.train.processes.worker"
_POLL_SECONDS: Final = 0.2
_KEPT_LINES: Final = 400
"""Enough for the tracebacks of a node's ranks and what torchrun writes after them."""
_TOLD_LINES: Final = 3
_MEETING_SECONDS: Final = 24 * 3600
"""Longer than any stallTimeout: not torchrun but the run's policy ends a wait for a node that does not come."""


@dataclass(frozen=True)
class Processes:
    """What one node runs."""

    count: int
    threads: int
    """OpenMP threads of each process."""


@dataclass(frozen=True)
class Rendezvous:
    """How the processes of all nodes find each other: the only thing that depends on the number of nodes."""

    arguments: tuple[str, ...]
    """torchrun's (`--nnodes`, `--node-rank`, `--rdzv-*`)."""
    interface: str | None
    """Network interface of gloo and NCCL; None leaves the choice to them."""


SINGLE_NODE: Final = Rendezvous(arguments=("--standalone", "--local-addr", "127.0.0.1"), interface="lo")
"""Processes that meet on this machine, over the loopback interface."""


def rendezvous_of(gang: Gang) -> Rendezvous:
    """How this node finds the others: torchrun's static rendezvous at rank 0's pod, whose name appears with the pod.

    Whoever comes first waits; how long all of them may wait is for the caller of the stage to say.
    """
    if gang.nodes == 1:
        return SINGLE_NODE
    host, _, port = gang.coordinator.rpartition(":")
    arguments = ["--nnodes", str(gang.nodes), "--node-rank", str(gang.rank), "--rdzv-backend", "static"]
    meeting = ["--master-addr", host, "--master-port", port, "--rdzv-conf", f"timeout={_MEETING_SECONDS}"]
    return Rendezvous(arguments=(*arguments, *meeting), interface=None)


def count_processes(training: TrainingSettings, *, gpus: int, cores: int) -> Processes:
    """One process a GPU; without GPU at most one a core, the cores divided among them.

    Of several nodes each runs exactly `training.gpusPerNode`, so that all count the same. Raises BadConfigError when
    the machine has fewer GPUs than that.
    """
    if 0 < gpus < training.gpus_per_node:
        raise BadConfigError(
            f"spec.training.gpusPerNode is {training.gpus_per_node} but this machine offers {gpus}. Lower it, or give "
            "the train stage more GPUs in spec.stages.train.resources."
        )
    count = training.gpus_per_node if gpus or training.nodes > 1 else min(training.gpus_per_node, cores)
    return Processes(count=count, threads=max(1, cores // count))


def torchrun_command(processes: Processes, rendezvous: Rendezvous, job: Path) -> list[str]:
    """The command that runs this node's workers."""
    agent = [sys.executable, "-m", "dynalign_trainer.train.processes.agent", str(os.getpid())]
    workers = ["--nproc-per-node", str(processes.count), "--module", _WORKER, str(job)]
    return [*agent, *rendezvous.arguments, *workers]


def worker_environment(processes: Processes, rendezvous: Rendezvous, *, gpus: int) -> dict[str, str]:
    """What the workers get beside the stage's own environment: threads, interface, no hub, no telemetry."""
    environment = {
        "OMP_NUM_THREADS": str(processes.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    if rendezvous.interface is not None:
        environment |= {f"{backend}_SOCKET_IFNAME": rendezvous.interface for backend in ("GLOO", "NCCL")}
    if gpus:
        return environment
    # Threads that wait must sleep: spinning ones starve each other on shared cores and under a CPU quota. On a CPU
    # torch.compile needs a C++ compiler, which images do not have.
    return environment | {"DS_ACCELERATOR": "cpu", "OMP_WAIT_POLICY": "PASSIVE", "TORCH_COMPILE_DISABLE": "1"}


def _nothing() -> None:
    """Do nothing."""


def run_workers(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    watch: Callable[[], None],
    first: Callable[[], None] = _nothing,
) -> None:
    """Run to the end, calling `first` once and then `watch` again and again; the output goes to this process's stderr.

    Raises TrainingFailedError with the error that ended them, or the last lines that say something, and
    MemoryFullError where that error is one of memory. Whatever `first` or `watch` raises ends the workers.
    """
    _run(_start(command, environment), watch, first)


def run_alone(
    job: Path,
    environment: Mapping[str, str],
    *,
    watch: Callable[[], None],
    first: Callable[[], None] = _nothing,
) -> None:
    """Run a single worker, without torchrun and the libraries that it imports; all else is as in `run_workers`."""
    command = [sys.executable, "-u", "-m", _WORKER, str(job), str(os.getpid())]
    _run(_start(command, {**environment, **ALONE}), watch, first, is_worker=True)


def run_forked(
    work: Callable[[], None],
    environment: Mapping[str, str],
    *,
    watch: Callable[[], None],
    first: Callable[[], None] = _nothing,
) -> None:
    """Run a single worker, forked off this process (`forked`), to its end; all else is as in `run_workers`."""
    _run(fork_worker(work, environment), watch, first, is_worker=True)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _run(
    process: "subprocess.Popen[str] | ForkedWorker",
    watch: Callable[[], None],
    first: Callable[[], None],
    *,
    is_worker: bool = False,
) -> None:
    """Run torchrun, or the only worker if `is_worker`, to its end."""
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with _relayed(process, last):
        first()
        while True:
            try:
                code = process.wait(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                watch()
    watch()
    if code != 0:
        if is_worker and code < 0:
            last.append(killed(0, code))  # as torchrun's agent says of its workers
        raise explain_end(code, list(last))


def explain_end(code: int, lines: Sequence[str]) -> StageError:
    """The error for training processes that ended with a code; `lines` are the last that they wrote."""
    error = find_error(lines)
    if error is None:
        *before, last = last_lines(lines, _TOLD_LINES) or ["nothing was written"]
        earlier = f" Before that: {' | '.join(before)}" if before else ""
        return TrainingFailedError(f"{last}: with this the training processes ended (code {code}).{earlier}")
    if error.type == "OutOfMemoryError" or "out of memory" in error.text.lower():
        return out_of_memory(str(error), Stage.TRAIN)
    failed = TrainingFailedError(
        f"{error}. With this the training processes ended (code {code}); their log tells more."
    )
    failed.place = "" if is_consequence(error) else f"{error.type} {error.place}"
    return failed


@contextmanager
def _relayed(process: "subprocess.Popen[str] | ForkedWorker", last: deque[str]) -> Iterator[None]:
    """Pass the output on and keep its end in `last`; no process outlives the block."""
    if process.stdout is None:
        raise RuntimeError("the workers were started without a pipe")
    reader = threading.Thread(target=_relay, args=(process.stdout, last), daemon=True, name="worker-output")
    reader.start()
    try:
        yield
    finally:
        if process.poll() is None:
            log.warning("ending the training processes")
            _kill(process.pid)
            process.wait()
        reader.join()


def _kill(leader: int) -> None:
    """Kill a session, or its leader to be: a process that was just forked may not have come to begin it yet."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(leader, signal.SIGKILL)


def _relay(stream: IO[str], last: deque[str]) -> None:
    for line in stream:
        print_error_output(line)
        if line.strip():
            last.append(line)
