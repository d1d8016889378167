"""`dynalign run` with real stages in subprocesses: what it says and how it ends when things go wrong."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dynalign_operator.clusters.local.workdir import Workdir, locked

pytestmark = pytest.mark.slow

DYNALIGN = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")
RUN = "apiVersion: dynalign.io/v1alpha1\nkind: AlignmentRun\nmetadata: {name: broken}\nspec: {model: {uri: ./model}}\n"


def dynalign(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*DYNALIGN, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run whose model is no model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def test_a_bad_model_ends_with_one_paragraph_and_code_11(folder: Path) -> None:
    result = dynalign("run", "run.yaml", cwd=folder)
    assert result.returncode == 11
    sentence, log = result.stderr.splitlines()
    assert sentence.startswith("broken failed: ")
    assert "config.json" in sentence
    assert (folder / log.removeprefix("The log is ")).is_file()
    assert "config.json" in (folder / "runs/broken/report.html").read_text()

    shown = dynalign("status", cwd=folder)
    assert shown.stdout.startswith("broken: Failed")
    assert "BadInput" in shown.stdout
    stored = json.loads(dynalign("status", "runs/broken", "-o", "json", cwd=folder).stdout)
    assert (
        yaml.safe_load(dynalign("status", "run.yaml", "-o", "yaml", cwd=folder).stdout)["status"]["phase"] == "Failed"
    )
    assert stored["status"]["fetch"]["phase"] == "Failed"
    assert "config.json" in dynalign("logs", "--stage", "fetch", cwd=folder).stdout


def test_a_failed_run_is_tried_again(folder: Path) -> None:
    assert dynalign("run", "run.yaml", "--quiet", cwd=folder).returncode == 11
    second = dynalign("run", "run.yaml", "--plain", cwd=folder)
    assert second.returncode == 11
    assert "attempt 2" in second.stdout


def test_two_in_one_folder(folder: Path) -> None:
    with locked(Workdir(folder / "w")):
        result = dynalign("run", "run.yaml", "--workdir", "w", cwd=folder)
    assert result.returncode == 75
    assert "another dynalign (process" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_must_not_change(folder: Path) -> None:
    dynalign("run", "run.yaml", "--quiet", cwd=folder)
    (folder / "run.yaml").write_text(RUN.replace("uri: ./model", "uri: 'bundled://smollm2-135m-instruct'"))
    result = dynalign("run", "run.yaml", cwd=folder)
    assert result.returncode == 10
    assert result.stderr.startswith("spec.model cannot be changed once the run exists; ")


def test_status_and_logs_without_a_run(tmp_path: Path) -> None:
    for command in ("status", "logs"):
        result = dynalign(command, ".", cwd=tmp_path)
        assert result.returncode == 11
        assert result.stderr == ". holds no run (no run.json); start one with `dynalign run FILE`.\n"
    assert dynalign("status", cwd=tmp_path).returncode == 11


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_with_grace_and_say_how_to_go_on(folder: Path, number: signal.Signals, code: int) -> None:
    (folder / "run.yaml").write_text(RUN.replace("uri: ./model", "uri: 'bundled://smollm2-135m-instruct'"))
    command = [*DYNALIGN, "run", "run.yaml", "--plain", "--workdir", "w", "--set", "metadata.name=other"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("runs fetch" in line for line in process.stdout)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == code
    assert "`dynalign run run.yaml --set metadata.name=other --workdir w` goes on from there." in errors
    stored = json.loads((folder / "w" / "run.json").read_text())
    assert stored["metadata"]["name"] == "other"
    assert stored["status"]["phase"] in ("Pending", "Running")
