"""`dynalign run` at a gate: without a terminal it ends and says how to go on; on a terminal it asks."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from dynalign_contract.stages import Stage
from dynalign_operator.cli.main import app
from dynalign_operator.clusters.local.workdir import Workdir, read_run, write_run
from dynalign_operator.runfile.run_file import parse_run_file
from support.report_runs import WorkFolder
from support.simulation import Simulation, succeed

WORKDIR = Workdir(Path("runs/r"))
RUN = yaml.safe_dump(
    {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": "r"},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct"},
            "iterations": 1,
            "policy": {"approval": ["BeforeTrain"]},
        },
    }
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run file, and the working folder of its run, which waits before its training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNALIGN_CACHE", str(tmp_path / "cache"))
    Path("run.yaml").write_text(RUN)
    WorkFolder(iterations=1, last_stage=Stage.JUDGE).write(WORKDIR.root)
    simulation = Simulation(parse_run_file(RUN).run)
    while simulation.run.status.awaited_approval is None:
        simulation.step(succeed)
    metadata = simulation.run.metadata.model_copy(update={"resource_version": "1"})
    write_run(WORKDIR, simulation.run.model_copy(update={"metadata": metadata}))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "160"})


def stored_phase() -> str:
    run = read_run(WORKDIR)
    assert run is not None
    return str(run.status.phase)


def test_without_a_terminal_it_ends_with_20_and_says_how_to_go_on() -> None:
    said = invoke("run", "run.yaml", "--plain")
    assert said.exit_code == 20, said.output
    for words in ("describe runs/r", "approve runs/r", "dynalign run run.yaml"):
        assert words in said.stdout
    assert stored_phase() == "Running"


def test_a_refused_run_ends_with_12_and_asks_again_when_it_is_tried_again() -> None:
    assert invoke("approve", "r", "--reject", "too flattering").exit_code == 0
    said = invoke("run", "run.yaml", "--plain")
    assert said.exit_code == 12, said.output
    assert "(unverified name) refused the training of iteration 0: too flattering." in said.stderr
    assert stored_phase() == "Failed"
    assert invoke("run", "run.yaml", "--plain").exit_code == 20, "the same refusal counts once"


def test_a_terminal_asks_and_takes_the_answer(machine: Path) -> None:
    main, terminal = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from dynalign_operator.cli.main import main; main()",
        "run",
        "run.yaml",
        "--plain",
    ]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=machine) as process:
        os.close(terminal)
        shown = b""
        while b"decide later]" not in shown:
            shown += os.read(main, 4096)
        os.write(main, b"n\n")
        try:
            while chunk := os.read(main, 4096):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        os.close(main)
    text = shown.decode()
    assert process.returncode == 12, text
    assert "Judged answers of iteration 0" in text
    assert "refused the training of iteration 0" in " ".join(text.split())
