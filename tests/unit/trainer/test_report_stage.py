"""The report stage, from the planner's Job to the page: as a process of its own, for it changes its own priority."""

import json
from dataclasses import replace
from pathlib import Path

from dynalign_contract.layout import MANIFEST, REPORT_FILE, REPORT_FOLDER, REPORT_RECORD, RunLayout, part_name
from dynalign_contract.manifest import read_listed, verify_files
from dynalign_contract.metrics import ReportMetrics
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.planning.observed import JobObservation, JobPhase
from dynalign_operator.planning.plan import JobBundle
from support.builders import a_run
from support.report_runs import a_work_folder, data_of, rows_in
from support.report_stage import run_stage
from support.simulation import Simulation


def last_report() -> JobBundle:
    """The Job with which the planner has the end of a run reported."""
    return Simulation(a_run().with_iterations(2).build()).finish().reports[-1]


def test_the_pod_that_the_planner_builds_writes_the_report(tmp_path: Path) -> None:
    root = a_work_folder().write(tmp_path / "run")
    result = run_stage(last_report(), root)
    layout = RunLayout(root)
    assert result.outcome is Outcome.SUCCEEDED
    assert result.artifact is not None
    assert result.artifact.path == REPORT_FOLDER
    page = layout.report.read_text()
    assert {metric.name: metric.value for metric in result.metrics}[ReportMetrics.bytes.name] == len(page.encode())
    assert "uri: bundled://tiny" in page, "the specification comes with the facts"
    assert rows_in(page, "groups-0-0"), "the samples come from the run's folder"
    folder = layout.stage(Stage.REPORT)
    verify_files(folder, read_listed(folder))
    assert json.loads((folder / REPORT_RECORD).read_text()) == {"iteration": 1, "phase": "Succeeded", "problems": []}
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, REPORT_RECORD]


def test_an_attempt_that_is_repeated_after_it_was_done_is_skipped(tmp_path: Path) -> None:
    root, bundle = a_work_folder().write(tmp_path / "run"), last_report()
    run_stage(bundle, root)
    written = (root / REPORT_FILE).stat().st_mtime_ns
    assert run_stage(bundle, root).outcome is Outcome.SKIPPED
    assert (root / REPORT_FILE).stat().st_mtime_ns == written


def test_what_a_killed_attempt_has_left_is_no_obstacle(tmp_path: Path) -> None:
    root, bundle = a_work_folder().write(tmp_path / "run"), last_report()
    folder = RunLayout(root).stage(Stage.REPORT)
    folder.mkdir()
    for name in (REPORT_FILE, f".{REPORT_FILE}.4711.tmp"):
        (folder / name).write_text("half a page")
    (root / REPORT_FILE).write_text("the report before")
    assert run_stage(bundle, root).outcome is Outcome.SUCCEEDED
    assert data_of((root / REPORT_FILE).read_text())
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, REPORT_RECORD]


def test_an_artifact_that_cannot_be_read_is_a_warning_and_the_rest_is_reported(tmp_path: Path) -> None:
    root = a_work_folder().write(tmp_path / "run")
    (RunLayout(root).stage(Stage.GENERATE, 0) / part_name(0)).write_bytes(b"PAR1 no more")
    result = run_stage(last_report(), root)
    assert result.outcome is Outcome.SUCCEEDED
    assert any(part_name(0) in warning for warning in result.warnings)
    simulation = Simulation(a_run().with_iterations(1).build(), report_fate=lambda job: _ended(job, result)).finish()
    assert simulation.run.status.report is not None
    assert part_name(0) in simulation.run.status.report.message


def _ended(job: JobObservation, result: StageResult) -> JobObservation:
    return replace(job, phase=JobPhase.SUCCEEDED, results=(result,), exit_code=0)
