"""What a run does when its stages are killed, its artifacts damaged and its volume full: nothing is lost or poisoned."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from dynalign_contract.layout import (
    ANSWERS_FILE,
    HELD_OUT_FILE,
    MANIFEST,
    REPORT_FILE,
    REPORT_FOLDER,
    RunLayout,
    part_name,
)
from dynalign_contract.manifest import Manifest, read_manifest
from dynalign_contract.stages import ITERATION_STAGES, SIDE_STAGES, Stage
from dynalign_operator.api.status import ConditionType, Phase, StagePhase
from dynalign_operator.planning.observed import Step
from lab.local_runs import LocalRun, write_run
from lab.testbed import Testbed, load_testbed
from support.shared_runs import SHORT, finished_run
from support.stage_processes import kill_stage, report_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return load_testbed()


@pytest.fixture
def run(testbed: Testbed, tmp_path: Path) -> LocalRun:
    return write_run(tmp_path, testbed, SHORT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run that nobody disturbs."""
    return finished_run(tmp_path_factory, SHORT).run


def kill_all(parent: int) -> None:
    """What the loss of a machine is to `dynalign run` and its stage."""
    for process in (psutil.Process(parent), *psutil.Process(parent).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def middle_of(stage: Stage, layout: RunLayout) -> Path:
    """The file whose appearance shows that a stage is in the middle of its work."""
    folder = layout.stage(stage, 0)
    return {
        Stage.PROMPTS: folder / HELD_OUT_FILE,
        Stage.GENERATE: folder / part_name(0),
        Stage.JUDGE: folder / part_name(0),
        Stage.TRAIN: layout.checkpoints(0) / "checkpoint-1" / MANIFEST,
        Stage.EVALUATE: folder / ANSWERS_FILE,
    }.get(stage, folder)


LONG = (Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE, Stage.TRAIN, Stage.EVALUATE)
"""Stages of seconds here. On a busy machine even one of these may be done before its middle can be seen."""


def await_middle(stage: Stage, layout: RunLayout, process: subprocess.Popen[str]) -> None:
    """Wait until the stage is in the middle of its work, or done."""
    while not middle_of(stage, layout).exists():
        assert process.poll() is None, f"{stage} ended early"
        time.sleep(0.002)  # between two looks at the folder


def is_done(stage: Stage, layout: RunLayout) -> bool:
    """Whether the stage has finished its artifact."""
    return read_manifest(layout.stage(stage, 0)) is not None


def artifacts(layout: RunLayout) -> dict[str, Manifest]:
    """What the run has finished, by folder."""
    folders = {path.parent for path in layout.root.rglob(MANIFEST)} - {layout.root}
    found = {str(folder.relative_to(layout.root)): read_manifest(folder) for folder in folders}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def sequence(layout: RunLayout) -> dict[str, Manifest]:
    """What the stages of the sequence have finished; a report is written anew with each iteration, and after a failure."""
    return {name: manifest for name, manifest in artifacts(layout).items() if name != REPORT_FOLDER}


def test_kill_9_at_the_start_in_the_middle_and_at_the_end_of_each_stage(run: LocalRun, undisturbed: LocalRun) -> None:
    """Of all processes while a stage starts, of the stage in its middle, of `dynalign run` when the stage is done."""
    layout = RunLayout(run.workdir)
    finished: dict[str, Manifest] = {}
    killed: list[Stage] = []
    for stage in (stage for stage in Stage if stage not in {*SIDE_STAGES, Stage.ROLLOUT}):
        with run.start() as process:
            run.until(process, f"runs {stage}")
            kill_all(process.pid)
        with run.start() as process:
            run.until(process, f"runs {stage}")
            await_middle(stage, layout, process)
            if kill_stage(process.pid) and not is_done(stage, layout):
                killed.append(stage)
                run.until(process, f"runs {stage}")
            run.until(process, f"{Step(stage, 0 if stage in ITERATION_STAGES else None)} succeeded")
            kill_all(process.pid)
        if stage is Stage.GENERATE:
            damage_is_refused(run, layout.stage(stage, 0) / part_name(2), correct=True)
        assert {name: artifacts(layout)[name] for name in finished} == finished
        if stage is Stage.TRAIN:
            damage_is_refused(run, layout.stage(Stage.TRAIN, 0) / "adapter_config.json", correct=False)
            shutil.rmtree(layout.batch(0))  # it is written with the policy
        finished = sequence(layout)

    assert len([stage for stage in LONG if stage in killed]) >= 3, f"killed in the middle: {killed}"
    result = run.finish()
    assert result.returncode == 0, f"{result.stderr}\n{run.logs()}"
    assert run.status.phase is Phase.SUCCEEDED
    calm = RunLayout(undisturbed.workdir)
    assert artifacts(layout).keys() == artifacts(calm).keys()
    assert {name: manifest.digest for name, manifest in finished.items()} == {
        name: manifest.digest for name, manifest in sequence(calm).items()
    }


def test_kill_9_of_every_report_leaves_the_run_as_it_is(run: LocalRun, undisturbed: LocalRun) -> None:
    """Both attempts at each report; `dynalign run` then writes the last one itself."""
    killed = 0
    with run.start() as process:
        while process.poll() is None:
            report = report_process(process.pid)
            if report is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    report.kill()
                    killed += 1
            time.sleep(0.002)  # between two looks at the processes
        output, errors = process.communicate()
    assert process.returncode == 0, f"{errors}\n{run.logs()}"
    assert killed >= 2
    layout, status = RunLayout(run.workdir), run.status
    assert status.phase is Phase.SUCCEEDED
    assert status.report is not None
    assert (status.report.phase, status.report.failures) == (StagePhase.FAILED, 2)
    assert "The report of the run to its end failed" in output
    own, calm = ({n: m.digest for n, m in artifacts(RunLayout(r.workdir)).items()} for r in (run, undisturbed))
    assert own.keys() == calm.keys() - {REPORT_FOLDER}
    assert own == {name: digest for name, digest in calm.items() if name in own}
    assert layout.report.read_text().startswith("<!doctype html>")
    again = run.finish()
    assert again.returncode == 0, again.stderr
    assert run.status.report is not None
    assert run.status.report.phase is StagePhase.SUCCEEDED, "given again, `dynalign run` tries its report again"
    known = {n: m.digest for n, m in sequence(RunLayout(run.workdir)).items()}
    assert known == own, "and leaves a finished run alone"


def test_the_report_of_an_undisturbed_run_is_written_beside_it(undisturbed: LocalRun) -> None:
    status = undisturbed.status
    assert status.report is not None
    assert (status.report.phase, status.report.path) == (StagePhase.SUCCEEDED, REPORT_FILE)
    assert status.report.run_completion_time == status.completion_time
    assert RunLayout(undisturbed.workdir).report.is_file()


def damage_is_refused(run: LocalRun, file: Path, *, correct: bool) -> None:
    """Whatever follows refuses to work on a file of which one bit is wrong; corrected or removed, it lets the run go on."""
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = run.finish()
    assert refused.returncode == 11, refused
    assert file.name in refused.stderr
    assert "remove the folder" in refused.stderr.lower()
    (stalled,) = (c for c in run.status.conditions if c.type is ConditionType.STALLED)
    assert "remove the folder" in stalled.message.lower()
    if correct:
        file.write_bytes(whole)
    else:
        shutil.rmtree(file.parent)


def test_a_full_volume_says_so_and_the_run_goes_on_once_there_is_space(run: LocalRun) -> None:
    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run.file.write_text(run.file.read_text().replace("  iterations: 1\n", "  iterations: 1\n  policy: {retries: 0}\n"))
    full = run.finish(preexec_fn=no_large_files)
    assert full.returncode == 1, full
    assert "has no space left" in full.stderr
    assert "spec.storage.size" in full.stderr
    with run.start() as process:
        run.until(process, "fetch succeeded")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    assert run.status.fetch is not None
    assert run.status.fetch.artifact is not None


def test_a_second_run_in_the_same_folder_waits_for_nobody(run: LocalRun) -> None:
    with run.start() as process:
        run.until(process, "runs fetch")
        second = run.finish()
        assert second.returncode == 75
        assert str(process.pid) in second.stderr
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=300)
