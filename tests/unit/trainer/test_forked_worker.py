"""A training process that is forked off its stage: how it ends is told as of one that torchrun has started."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dynalign_contract.errors import TrainingFailedError
from dynalign_trainer.train.processes.forked import may_fork
from dynalign_trainer.train.processes.launch import run_forked


def fails() -> None:
    raise KeyError("colour")


def says() -> None:
    sys.stdout.write("loading\n")
    sys.exit("the disk is on fire")


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (fails, r"KeyError: 'colour' \(trainer/test_forked_worker.py:\d+ in fails\)"),
        (says, r"^the disk is on fire: .*\(code 1\).* Before that: loading$"),
        (is_killed, r"rank 0 was killed by signal 9; signal 9 often means too little memory"),
        (lambda: sys.exit(3), r"\(code 3\)"),
    ],
)
def test_how_it_fails_is_told(work: Callable[[], None], told: str) -> None:
    with pytest.raises(TrainingFailedError, match=told):
        run_forked(work, {}, watch=lambda: None)


def test_it_is_the_only_rank_in_a_session_of_its_own(tmp_path: Path) -> None:
    def work() -> None:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GLOO_SOCKET_IFNAME")
        ranks = " ".join(os.environ[name] for name in names)
        (tmp_path / "found").write_text(f"{ranks} {os.getsid(0) == os.getpid()}")
        sys.exit()

    before = dict(os.environ)
    run_forked(work, {"GLOO_SOCKET_IFNAME": "lo"}, watch=lambda: None)
    assert (tmp_path / "found").read_text() == "0 1 0 lo True"
    assert dict(os.environ) == before


def test_whatever_interrupts_the_stage_ends_it() -> None:
    before = {process.pid for process in psutil.Process().children()}

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_forked(signal.pause, {}, watch=interrupted)
    assert {process.pid for process in psutil.Process().children()} <= before


def test_it_ends_with_the_stage() -> None:
    stage = (
        "import os, signal; from dynalign_trainer.train.processes.forked import fork_worker; "
        "worker = fork_worker(signal.pause, {}); print(worker.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", stage], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        process.kill()
        worker.wait(timeout=60)
    assert not worker.is_running()


def test_only_what_comes_from_a_preload_server_may_fork() -> None:
    """A stage in a pod has imported nothing, and one on a machine with a GPU is a program of its own."""
    assert not may_fork()
    program = (
        "import os; from dynalign_trainer.train.processes.forked import allow_fork, may_fork; allow_fork(); "
        "child = os.fork(); child and os.wait(); print(may_fork(), flush=True)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
