"""`dynalign report`: which runs it reads, where it writes, and what it says where it cannot."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynalign_operator.cli import report
from dynalign_operator.cli.main import app
from support.builders import a_run
from support.report_runs import a_work_folder, data_of, rows_in


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_report_of_one_run_lies_in_its_folder(tmp_path: Path) -> None:
    made = invoke(a_work_folder().write(tmp_path / "a"))
    assert made.exit_code == 0, made.output
    assert f"{tmp_path / 'a' / 'report.html'} (" in made.output
    page = (tmp_path / "a" / "report.html").read_text()
    assert rows_in(page, "groups-0-1")
    assert "model:\n  uri: bundled://tiny" in page
    assert len(page) > 1_900_000  # the plotting library is in it


def test_several_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [a_work_folder().write(tmp_path / name) for name in ("a", "b")]
    made = invoke(*folders, "-o", tmp_path / "both.html")
    assert made.exit_code == 0, made.output
    assert "reports 2 runs" in made.output
    labels = [run["label"] for run in data_of((tmp_path / "both.html").read_text())["runs"]]
    assert labels == [f"r ({folder})" for folder in folders]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    from dynalign_contract.stages import Stage

    sentence = "The judge is unfit: <canaries> outscore answers. Change judging."
    invoke(a_work_folder().failed(sentence, after=Stage.JUDGE).write(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "The judge is unfit: &lt;canaries&gt; outscore answers. Change judging." in page
    assert "phase-failed" in page


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_run_without_any_artifact_has_a_report(tmp_path: Path, phase: str) -> None:
    root = a_work_folder().of_size(0, 0, 0).write(tmp_path)
    stored = json.loads((root / "run.json").read_text())
    stored["status"] |= {"phase": phase, "progress": ""}
    (root / "run.json").write_text(json.dumps(stored))
    made = invoke(root)
    assert made.exit_code == 0, made.output
    assert "Nothing has been measured yet." in (root / "report.html").read_text()


def test_damage_is_said_and_does_not_hinder(tmp_path: Path) -> None:
    root = a_work_folder().write(tmp_path)
    (root / "iterations/001/rollouts/part-00000.parquet").write_bytes(b"nothing")
    made = invoke(root)
    assert made.exit_code == 0
    assert "not in the report: " in made.output
    assert "part-00000.parquet cannot be read" in (root / "report.html").read_text()


@pytest.mark.parametrize(
    ("missing", "words"), [("jinja2", "jinja2"), ("plotly.offline", "plotly"), ("pyarrow", "pyarrow")]
)
def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("dynalign_report", "dynalign_contract.records"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    made = invoke(a_work_folder().of_size(0, 0, 0).write(tmp_path))
    assert made.exit_code == 11
    assert words in made.output
    assert "install dynalign[report]" in made.output


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    made = invoke(a_work_folder().write(tmp_path / "a"), "-o", tmp_path / "a" / "run.json" / "file.html")
    assert made.exit_code == 11
    assert "cannot be written" in made.output


def test_no_run_is_refused(tmp_path: Path) -> None:
    made = invoke(tmp_path)
    assert made.exit_code == 11
    assert "holds no run" in made.output


def test_a_fault_of_the_report_is_no_fault_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(file: Path, stored: object) -> None:
        raise KeyError("reward")

    monkeypatch.setattr(report, "make_report", broken)
    report.report_run(a_run().build(), tmp_path)
    assert "there is no report: KeyError: 'reward'" in capsys.readouterr().err
