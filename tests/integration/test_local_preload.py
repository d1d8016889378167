"""The preload server that forks stages, with real stages. Their configuration is a FIFO, so each waits until the test lets it go on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM

import psutil
import pytest

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.clusters.local.commands import STAGE_MODULE, Command
from dynalign_operator.clusters.local.preload import ForkedStage, PreloadServer

pytestmark = pytest.mark.slow

PATIENCE = 300.0


@pytest.fixture(scope="module")
def shared() -> Iterator[PreloadServer]:
    server = PreloadServer()
    yield server
    server.close()


class Held:
    """A stage that waits for its configuration."""

    def __init__(self, server: PreloadServer, folder: Path, name: str = "a") -> None:
        self.config, self.log = folder / f"{name}.json", folder / f"{name}.log"
        os.mkfifo(self.config)
        arguments = (f"--config={self.config}", f"--root={folder}", f"--result={folder / name}.result")
        command = Command((sys.executable, "-m", STAGE_MODULE, *arguments), {**os.environ, "MARK": name})
        process = server.start(command, folder=folder, log=self.log)
        assert isinstance(process, ForkedStage)
        self.process = process

    def await_start(self) -> psutil.Process:
        """Wait until the stage reads its configuration; returns it."""
        self._file = os.open(self.config, os.O_WRONLY)
        self.process.poll()
        return psutil.Process(self.process.pid)

    def let_go(self) -> int:
        """Give it a configuration that is none, and wait for its end."""
        os.write(self._file, b"{}")
        os.close(self._file)
        return self.process.wait(PATIENCE)


def test_stages_are_forks_of_one_process_with_an_environment_and_a_log_of_their_own(
    shared: PreloadServer, tmp_path: Path
) -> None:
    parents = set()
    for name in ("first", "second"):
        stage = Held(shared, tmp_path, name)
        process = stage.await_start()
        parents.add(process.ppid())
        assert os.getpgid(process.pid) == process.pid
        assert stage.process.poll() is None
        assert stage.let_go() == ExitCode.BAD_CONFIG
        assert f"{name}.json" in stage.log.read_text()
    assert len(parents) == 1


def test_a_stage_that_is_killed_leaves_the_server_to_the_next(shared: PreloadServer, tmp_path: Path) -> None:
    stage = Held(shared, tmp_path)
    server = stage.await_start().ppid()
    os.killpg(stage.process.pid, SIGKILL)
    assert stage.process.wait(PATIENCE) == -SIGKILL
    after = Held(shared, tmp_path, "after")
    assert after.await_start().ppid() == server
    assert after.let_go() == ExitCode.BAD_CONFIG


def test_a_second_stage_at_the_same_time_is_a_process_of_its_own(shared: PreloadServer, tmp_path: Path) -> None:
    stage = Held(shared, tmp_path)
    stage.await_start()
    arguments = (f"--config={tmp_path / 'none'}", f"--root={tmp_path}", f"--result={tmp_path / 'result'}")
    command = Command((sys.executable, "-m", STAGE_MODULE, *arguments), os.environ)
    other = shared.start(command, folder=tmp_path, log=tmp_path / "other.log")
    assert other.wait(PATIENCE) == ExitCode.BAD_CONFIG
    assert stage.let_go() == ExitCode.BAD_CONFIG


def test_sigterm_to_the_server_goes_on_to_the_stage_and_then_the_server_ends(tmp_path: Path) -> None:
    server = PreloadServer()
    stage = Held(server, tmp_path)
    parent = psutil.Process(stage.await_start().ppid())
    parent.send_signal(SIGTERM)
    assert stage.let_go() == ExitCode.BAD_CONFIG
    assert psutil.wait_procs([parent], timeout=PATIENCE)[1] == []
    server.close()


def test_a_stage_does_not_outlive_its_server(shared: PreloadServer, tmp_path: Path) -> None:
    stage = Held(shared, tmp_path)
    process = stage.await_start()
    os.kill(process.ppid(), SIGKILL)
    assert stage.process.wait(PATIENCE) == -SIGKILL
    assert psutil.wait_procs([process], timeout=PATIENCE)[1] == []


def test_a_server_that_is_stopped_before_it_is_ready_has_stopped_its_stage(tmp_path: Path) -> None:
    server = PreloadServer()
    stage = Held(server, tmp_path)
    os.killpg(stage.process.pid, SIGTERM)
    assert stage.process.wait(PATIENCE) == -SIGTERM
    server.close()


@pytest.mark.parametrize(
    ("why", "children", "code", "visits"),
    [
        ("a stage has written all that it leaves, so nothing is taken down", "", 7, False),
        (
            "the worker of an engine is ended as Python ends it",
            "Process(target=time.sleep, args=(60,), daemon=True).start()",
            7,
            True,
        ),
    ],
)
def test_a_fork_ends_at_once_unless_it_has_children(why: str, children: str, code: int, visits: bool) -> None:
    program = "\n".join(
        (
            "import atexit, time",
            "from multiprocessing import Process",
            "from dynalign_trainer.preload_server import _leave",
            "atexit.register(print, 'taken down')",
            children,
            "print('written')",
            f"_leave({code})",
        )
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == code, f"{why}\n{ended.stderr}"
    assert ended.stdout.split("\n")[:-1] == (["written", "taken down"] if visits else ["written"]), why
