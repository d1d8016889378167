"""`from dynalign import Run`: runs of this machine, as a notebook sees them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from dynalign import ClusterError, Run, RunFailedError, RunFileError
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase
from support.report_runs import a_work_folder

FILE = (
    'apiVersion: dynalign.io/v1alpha1\nkind: AlignmentRun\nmetadata: {name: mine}\nspec: {model: {uri: "hf://a/b"}}\n'
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder of a finished run of two iterations, three prompts and two candidates."""
    return a_work_folder().write(tmp_path / "work")


def test_a_working_folder_is_opened(work: Path) -> None:
    run = Run.open(work)
    assert run.name == "r"
    assert run.status.phase is Phase.SUCCEEDED
    assert run.object.spec.model.uri == "bundled://tiny"


def test_a_run_in_runs_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_work_folder().write(Path("runs/r"))
    assert Run.open("r").folder == Path("runs/r")
    with pytest.raises(ClusterError, match=r"there is no folder s or runs/s"):
        Run.open("s")


def test_samples_are_the_candidates_with_their_rewards(work: Path) -> None:
    run = Run.open(work)
    assert len(run.samples()) == 2 * 3 * 2
    found = run.samples(1)
    assert {sample.iteration for sample in found} == {1}
    made = a_work_folder()
    assert [sample.reward for sample in found] == [made.reward(1, n, c) for n in range(3) for c in range(2)]
    assert found[1].prompt == "How can I 0?"
    assert found[1].answer == "Answer 1 to How can I 0?"
    assert found[1].truncated
    assert found[1].advantage == pytest.approx(made.reward(1, 0, 1) - 0.5)


def test_the_table_has_a_row_an_iteration_and_names_stages(work: Path) -> None:
    table = Run.open(work).table()
    assert list(table.index) == [0, 1]
    assert table.index.name == "iteration"
    assert list(table["evaluate.win_rate"]) == pytest.approx([0.55, 0.6])
    assert list(table["evaluate.win_rate_low"]) == pytest.approx([0.45, 0.5])
    assert list(table["train.kl"]) == pytest.approx([0.0, 0.01])


def test_plots_have_intervals_and_a_line_to_read_them_against(work: Path) -> None:
    figure = Run.open(work).plot()
    series = figure.data[0]
    assert list(series.y) == pytest.approx([0.55, 0.6])
    assert list(series.error_y.array) == pytest.approx([0.1, 0.1])
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5, 0.0, 0.0]
    assert len(Run.open(work).plot("why").data) > 1
    with pytest.raises(ValueError, match="write one of worked, why, judge, cost"):
        Run.open(work).plot("all")  # type: ignore[arg-type]


def test_answers_before_and_after_and_the_report(work: Path) -> None:
    run = Run.open(work)
    prompt = run.held_out()[1]
    assert prompt.before == "Answer of base as ever"
    assert [answer.text for answer in prompt.after] == ["Answer of iteration-000 anew", "Answer of iteration-001 anew"]
    assert run.report() == work / "report.html"
    assert run.report(work.parent / "mine.html").read_text().startswith("<!doctype html>")


def test_a_run_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    assert Run.open(a_work_folder().write(tmp_path / "good")).wait(timeout=0).phase is Phase.SUCCEEDED
    failed = a_work_folder().failed("The judge is unfit. Change judging.", after=Stage.JUDGE).write(tmp_path / "bad")
    with pytest.raises(RunFailedError, match=r"The judge is unfit\. Change judging\."):
        Run.open(failed).wait()


def test_progress_is_printed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run.open(work).wait(progress=True)
    assert f"r in {work}" in capsys.readouterr().out


def test_it_works_where_an_event_loop_runs(work: Path) -> None:
    async def cell() -> Phase:
        return Run.open(work).status.phase

    assert asyncio.run(cell()) is Phase.SUCCEEDED


def test_a_file_is_checked_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    run = Run.from_file(file, {"spec.iterations": 2, "metadata.name": "other"})
    assert (run.name, run.settings) == ("other", ("spec.iterations=2", 'metadata.name="other"'))
    with pytest.raises(RunFileError, match=r"spec\.iterations"):
        Run.from_file(file, {"spec.iterations": 0})
    with pytest.raises(RunFileError, match="does not exist"):
        Run.from_file(tmp_path / "none.yaml")


def test_what_was_not_started_has_no_status(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    with pytest.raises(ClusterError, match=r"call start\(\)"):
        _ = Run.from_file(file).status


@pytest.mark.slow
def test_a_process_is_started_and_its_failure_raised(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    run = Run.from_file(file, {"spec.model.uri": str(tmp_path / "model")}).start(workdir=tmp_path / "work")
    with pytest.raises(RunFailedError, match=r"config\.json"):
        run.wait(timeout=300)
    assert run.process is not None
    assert run.process.process.wait(60) == 11
    assert "fetch" in run.process.output
    other = Run.from_file(file, {"spec.model.uri": str(tmp_path / "model"), "metadata.name": "other"})
    with pytest.raises(RunFailedError, match="holds the run mine, not other"):
        other.start(workdir=tmp_path / "work")


def test_a_cluster_needs_no_library_of_the_stages() -> None:
    """`pip install "dynalign[operator]"` is enough for the interface to a cluster."""
    heavy = ("torch", "pandas", "plotly", "pyarrow", "transformers", "jinja2")
    code = f"import sys, dynalign; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
