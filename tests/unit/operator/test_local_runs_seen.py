"""The commands that look at runs, for working folders: which folder is meant, what is said, which logs are followed."""

import asyncio
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.stages import Stage
from dynalign_operator.cli import run_choice
from dynalign_operator.cli.main import app
from dynalign_operator.clusters.local.log_files import LogFollower, find_logs
from dynalign_operator.clusters.local.run_source import LocalRunSource
from dynalign_operator.clusters.local.workdir import Workdir, is_locked, locked, write_run
from dynalign_operator.clusters.run_source import LogSelection
from dynalign_operator.planning.names import job_name
from dynalign_operator.planning.observed import Step
from support.builders import a_run
from support.simulation import Simulation, fail, succeed

DYNALIGN = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and neither a kubeconfig nor a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def store(simulation: Simulation, folder: str = "runs/r") -> Workdir:
    """A working folder with this run."""
    workdir = Workdir(Path(folder))
    workdir.events.parent.mkdir(parents=True)
    write_run(workdir, simulation.run)
    lines = (f"2026-01-01T00:00:00+00:00 {e.type} {e.reason} {e.message}\n" for e in simulation.events)
    workdir.events.write_text("".join(lines))
    return workdir


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "160"})


@pytest.fixture
def workdir() -> Workdir:
    return store(Simulation(a_run().build()).until(Stage.TRAIN, 0))


def test_a_run_is_named_by_its_folder_its_name_or_not_at_all(workdir: Workdir) -> None:
    for name in (["runs/r"], ["r"], ["./runs/r/"], []):
        said = invoke("describe", *name)
        assert said.exit_code == 0, said.output
        assert said.stdout.startswith("r in runs/r\n")
        assert "No dynalign process works on the run; it stopped at train of iteration 0." in said.stdout


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(workdir: Workdir) -> None:
    said = invoke("describe", "q")
    assert said.exit_code == 11
    assert said.stderr.startswith("there is no run q on this machine (no such folder, and no runs/q), and no cluster")
    assert "~/.kube/config does not exist" in said.stderr


def test_a_folder_that_another_process_works_in_is_seen_without_its_lock(workdir: Workdir) -> None:
    assert not is_locked(workdir)
    with locked(workdir):
        assert is_locked(workdir)
        said = invoke("describe", "r")
        assert "Job r-i000-train-a1 (train of iteration 0, attempt 1) has not started." in said.stdout
    assert not is_locked(workdir)


def test_top_lists_the_working_folders() -> None:
    store(Simulation(a_run().build()).finish(succeed), "runs/done")
    store(Simulation(a_run().with_policy(retries=0).build()).finish(lambda job: fail(job, 10)), "runs/bad")
    store(Simulation(a_run().build()).until(Stage.JUDGE, 1), "runs/half")
    lines = [line.split() for line in invoke("top").stdout.splitlines()]
    assert lines[0] == ["run", "in", "phase", "iteration", "stage", "done", "ends", "in", "GPUs", "goodput"]
    assert lines[1][:7] == ["r", "runs", "Running", "(stopped)", "2/2", "judge", "-"]
    assert lines[2][:6] == ["r", "runs", "Failed", "(BadConfig)", "-", "fetch"]
    assert lines[3] == ["r", "runs", "Succeeded", "2/2", "-", "-", "-", "-", "-"]


def test_top_without_a_run_or_a_cluster_says_what_is_missing() -> None:
    said = invoke("top")
    assert said.exit_code == 10
    assert said.stderr.startswith("there is no kubeconfig: ~/.kube/config does not exist.")


@pytest.mark.parametrize(
    ("simulation", "code"),
    [
        (Simulation(a_run().build()).finish(succeed), 0),
        (Simulation(a_run().build()).finish(lambda job: fail(job, 12)), 12),
        (Simulation(a_run().suspended().build()).finish(), 0),
        (Simulation(a_run().build()).until(Stage.JUDGE, 0), 1),
    ],
    ids=["complete", "a gate refused", "suspended", "its process was stopped"],
)
def test_watch_ends_with_the_run_s_exit_code(simulation: Simulation, code: int) -> None:
    store(simulation)
    assert invoke("watch", "r").exit_code == code


@pytest.mark.parametrize("name", ["r", "a-run-whose-name-is-cut-in-the-names-of-its-jobs-for-it-is-long"])
def test_a_log_file_is_of_the_attempt_whose_name_it_has(name: str) -> None:
    workdir = Workdir(Path("w"))
    expected = []
    for step in (Step(Stage.FETCH), Step(Stage.JUDGE, 3), Step(Stage.EXPORT)):
        for attempt in (1, 12):
            for index in range(2):
                path = workdir.log(job_name(name, step, attempt), index, 2 if step.stage is Stage.JUDGE else 1)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                expected.append((step, attempt, index if step.stage is Stage.JUDGE else 0))
    workdir.events.touch()
    found = [(log.origin.step, log.origin.attempt, log.origin.index) for log in find_logs(workdir, LogSelection())]
    assert sorted(found, key=str) == sorted(set(expected), key=str)
    judged = find_logs(workdir, LogSelection(stage=Stage.JUDGE, attempt=12))
    assert [(log.origin.index, log.origin.has_others) for log in judged] == [(0, True), (1, True)]


def write(workdir: Workdir, stage: Stage, attempt: int, text: str, shard: int | None = None) -> None:
    """Append to the log of an attempt, or of one of its two shards."""
    path = workdir.log(job_name("r", Step(stage, 0), attempt), shard or 0, 1 if shard is None else 2)
    with path.open("a") as file:
        file.write(text)


def test_logs_have_a_prefix_where_there_are_several_shards(workdir: Workdir) -> None:
    write(workdir, Stage.JUDGE, 1, "old\n")
    write(workdir, Stage.JUDGE, 2, "b\x1b[31m1\nb2\n", 1)
    write(workdir, Stage.JUDGE, 2, "a1\nhalf a line", 0)
    said = invoke("logs", "r", "--stage", "judge")
    assert said.stdout == "[judge/0] a1\n[judge/0] half a line\n[judge/1] b1\n[judge/1] b2\n"
    assert invoke("logs", "--attempt", "1").stdout == "old\n"
    assert (
        invoke("logs", "--stage", "judge", "--tail", "1").stdout
        == "[judge/0] a1\n[judge/0] half a line\n[judge/1] b2\n"
    )
    none = invoke("logs", "--stage", "export")
    assert none.exit_code == 11
    assert none.stderr == "runs/r has no such log; it has r-i000-judge-a1, r-i000-judge-a2.\n"


def test_following_goes_on_with_retries_and_ends_with_the_run(workdir: Workdir) -> None:
    """Each look adds something; the third is the last."""
    write(workdir, Stage.JUDGE, 1, "one\ntw")
    write(workdir, Stage.GENERATE, 1, "not asked for\n")
    steps: list[tuple[int, str]] = [(1, "o\n"), (2, "again\n"), (2, "no line end")]

    def is_over() -> bool:
        if not steps:
            return True
        attempt, text = steps.pop(0)
        write(workdir, Stage.JUDGE, attempt, text)
        return False

    async def follow() -> list[tuple[int, str]]:
        lines = LogFollower(workdir, LogSelection(stage=Stage.JUDGE), tail=None).follow(is_over)
        return [(line.origin.attempt, line.text) async for line in lines]

    assert asyncio.run(follow()) == [(1, "one"), (1, "two"), (2, "again"), (2, "no line end")]


def test_following_a_folder_that_nobody_works_in_ends_at_once(workdir: Workdir) -> None:
    write(workdir, Stage.JUDGE, 1, "all\n")
    said = invoke("logs", "r", "-f")
    assert said.exit_code == 0
    assert said.stdout == "all\n"
    assert said.stderr == "==> judge of iteration 0, attempt 1 (Job r-i000-judge-a1) <==\n"


def test_events_of_several_lines_stay_whole(workdir: Workdir) -> None:
    workdir.events.write_text("2026-01-01T00:00:00+00:00 Warning StageFailed one\ntwo\nodd Normal StageStarted x\n")

    async def read() -> list[tuple[str, str]]:
        source = LocalRunSource({"r": workdir.root})
        return [(event.reason, event.message) for event in await source.events(await source.get("r"))]

    assert asyncio.run(read()) == [("StageFailed", "one\ntwo"), ("StageStarted", "x")]


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("command", ["describe", "top", "status", "watch"])
def test_on_a_terminal_no_line_is_wider_than_it(workdir: Workdir, width: int, command: str) -> None:
    """A pseudo-terminal of 80 and of 160 columns, whose driver tells the command its size."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, width))
    arguments = [] if command == "top" else ["r"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [*DYNALIGN, command, *arguments], stdout=slave, stderr=slave, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 4096):
                shown += chunk
        except OSError:  # the other side is closed
            pass
    os.close(master)
    from rich.text import Text

    lines = Text.from_ansi(shown.decode().replace("\r\n", "\n")).plain.splitlines()
    assert process.returncode == (1 if command == "watch" else 0)
    assert any("train" in line for line in lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("command", ["top", "describe", "status", "watch", "logs"])
def test_a_cluster_without_the_client_is_a_sentence(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """`pip install dynalign` alone has no client for Kubernetes, and needs none for runs of this machine."""
    monkeypatch.setattr(run_choice, "find_spec", lambda name: None)
    arguments = ["-n", "team"] if command == "top" else ["ca", "-n", "team"]
    shown = CliRunner().invoke(app, [command, *arguments])
    assert shown.exit_code == ExitCode.BAD_CONFIG
    assert "pip install 'dynalign[operator]'" in shown.stderr
    assert "Traceback" not in shown.stderr
