"""Goodput of real runs: what the stages write is what the operator sums, and a killed stage shows as waste."""

import time
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.goodput import DeviceTime, DeviceUnit
from dynalign_contract.layout import RunLayout
from dynalign_contract.manifest import read_manifest
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import StagePhase, StageStatus
from dynalign_operator.planning.stage_status import seconds_of
from dynalign_trainer.runtime.useful_time import USEFUL_TIME_FILE
from lab.local_runs import LocalRun, write_run
from lab.testbed import load_testbed
from support.shared_runs import IN_SHARDS, finished_run
from support.stage_processes import stage_process

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "iterations": 1,
    "prompts": {"perIteration": 4, "heldOut": 4, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 48, "promptsPerPart": 1},
    "training": {"promptsPerStep": 1, "lora": {"rank": 8}, "gradientCheckpointing": False},
}


def stages_of(run: LocalRun, iteration: int = 0) -> dict[Stage, StageStatus]:
    return {entry.stage: entry for entry in run.status.iterations[iteration].stages}


def reported(layout: RunLayout, stage: Stage, iteration: int) -> float:
    """Useful seconds that the shards of a stage have written into their manifests."""
    folder, metric = layout.stage(stage, iteration), STAGE_METRICS[stage].useful_seconds
    manifests = [read_manifest(path) for path in (folder, *sorted(folder.glob("shard-*")))]
    return sum(read_metrics(stage, found.metrics)[metric] for found in manifests if found is not None)


def check_stage(entry: StageStatus, expected: float) -> DeviceTime:
    """Its seconds, of which as many were useful as its manifests say."""
    assert entry.goodput is not None
    seconds = entry.goodput.seconds
    assert seconds.useful == pytest.approx(expected, abs=0.01)
    assert seconds.useful > 0
    assert seconds.starting > 0
    assert (seconds.wasted, seconds.unknown) == (0, 0)
    duration = seconds_of(entry)
    assert duration is not None
    assert seconds.reserved <= duration + 0.01  # shards run one after the other here
    return seconds


def test_what_the_stages_measure_is_what_the_run_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    finished = finished_run(tmp_path_factory, IN_SHARDS)
    run, total = finished.run, DeviceTime()
    goodput, layout = run.status.goodput, RunLayout(run.workdir)
    assert goodput is not None
    for iteration in range(2):
        stages = stages_of(run, iteration)
        assert list(stages) == list(ITERATION_STAGES)
        for stage, entry in stages.items():
            total += check_stage(entry, reported(layout, stage, iteration))
    assert {name: getattr(goodput.seconds, name) for name in total.figures} == pytest.approx(
        {name: getattr(total, name) for name in total.figures}, abs=0.01
    )
    assert goodput.unit is DeviceUnit.POD
    assert f"goodput {goodput.share:.0%}" in finished.output
    assert "Useful wall-clock time" in layout.report.read_text()


def test_a_killed_stage_is_wasted_but_for_the_parts_that_it_had_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path, load_testbed(), {**TINY, "prompts": {**TINY["prompts"], "perIteration": 12}})
    folder = RunLayout(run.workdir).stage(Stage.GENERATE, 0)
    with run.start() as process:
        run.until(process, "runs generate")
        while not (folder / USEFUL_TIME_FILE).exists():
            assert process.poll() is None
            time.sleep(0.002)  # between two looks at the folder
        stage_process(process.pid).kill()
        _, errors = process.communicate()
    assert process.returncode == 0, f"{errors}\n{run.logs()}"
    entry = stages_of(run)[Stage.GENERATE]
    assert entry.phase is StagePhase.SUCCEEDED
    assert entry.goodput is not None
    assert entry.attempt == entry.goodput.attempt == 2
    seconds, metrics = entry.goodput.seconds, read_metrics(Stage.GENERATE, entry.metrics)
    generate = STAGE_METRICS[Stage.GENERATE]
    assert seconds.wasted > 0
    assert metrics[generate.preserved_seconds] > 0
    assert seconds.useful == pytest.approx(
        metrics[generate.useful_seconds] + metrics[generate.preserved_seconds], abs=0.01
    )
    assert run.status.goodput is not None
    assert run.status.goodput.seconds.wasted == pytest.approx(seconds.wasted, abs=0.01)
