"""`rollout: Fused` leaves what `Separate` leaves, with real engines: the same files, the same figures, fewer starts."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import RunLayout, stage_folder
from dynalign_contract.manifest import Manifest, read_listed
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_contract.result import StageResult, combine_artifacts
from dynalign_contract.stages import ITERATION_STAGES, PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus, StagePhase
from dynalign_operator.api.v1alpha1 import AlignmentRun, Rollout
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.planning.observed import Step
from lab.local_runs import LocalRun, write_run
from lab.testbed import load_testbed
from support.shared_runs import IN_SHARDS, finished_run
from support.stage_processes import config_on_testbed, stage_process, start_shard, until_there

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "iterations": 2,
    "prompts": {"perIteration": 4, "heldOut": 4, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 32, "promptsPerPart": 2},
    "training": {"learningRate": 1e-3, "promptsPerStep": 1, "lora": {"rank": 8}, "gradientCheckpointing": False},
}
MEASURED = {"tokens_per_second", "start_seconds", "useful_seconds", "preserved_seconds", "step_seconds"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalRun, LocalRun]:
    found = []
    for rollout in ("Separate", "Fused"):
        run = write_run(tmp_path_factory.mktemp(rollout), load_testbed(), {**TINY, "rollout": rollout})
        result = run.finish()
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
        found.append(run)
    return found[0], found[1]


def manifest(run: LocalRun, stage: Stage, iteration: int) -> Manifest:
    return read_listed(RunLayout(run.workdir).stage(stage, iteration))


@pytest.mark.parametrize("iteration", [0, 1])
@pytest.mark.parametrize("stage", PART_STAGES)
def test_every_byte_and_every_figure_is_the_same(runs: tuple[LocalRun, LocalRun], stage: Stage, iteration: int) -> None:
    separate, fused = (manifest(run, stage, iteration) for run in runs)
    assert fused.digest == separate.digest
    assert [file.name for file in fused.files] == [file.name for file in separate.files]
    if iteration == 0 and stage is not Stage.EVALUATE:  # later ones name the adapter, whose files hold times
        assert fused.config_digest == separate.config_digest
    figures = [
        {
            metric.name: value
            for metric, value in read_metrics(stage, found.metrics).items()
            if metric.name not in MEASURED
        }
        for found in (separate, fused)
    ]
    assert figures[0] == figures[1]
    assert len(figures[0]) > 5


def test_the_status_has_every_stage_as_if_it_had_had_a_job_of_its_own(runs: tuple[LocalRun, LocalRun]) -> None:
    separate, fused = (run.status.iterations for run in runs)
    for iteration in fused:
        stages = {entry.stage: entry for entry in iteration.stages}
        assert list(stages) == [Stage.ROLLOUT, *ITERATION_STAGES]
        assert all(entry.phase is StagePhase.SUCCEEDED for entry in stages.values())
        assert {stages[stage].job for stage in ROLLOUT_STAGES} == {stages[Stage.ROLLOUT].job}
        expected = {entry.stage: entry for entry in separate[iteration.index].stages}
        for stage in ROLLOUT_STAGES:
            assert stages[stage].artifact == expected[stage].artifact
            assert [m.name for m in stages[stage].metrics] == [m.name for m in expected[stage].metrics]
        goodput = stages[Stage.ROLLOUT].goodput
        assert goodput is not None
        assert goodput.seconds.unknown == 0
        parts = [stages[stage] for stage in ROLLOUT_STAGES]
        if iteration.index:  # the evaluation of the iteration before was a part of this rollout
            before = {entry.stage: entry for entry in fused[iteration.index - 1].stages}
            assert before[Stage.EVALUATE].job == stages[Stage.ROLLOUT].job
            parts.append(before[Stage.EVALUATE])
        useful = sum(read_metrics(part.stage, part.metrics)[STAGE_METRICS[part.stage].useful_seconds] for part in parts)
        assert goodput.seconds.useful == pytest.approx(useful, abs=0.01)
    assert [iteration.reward for iteration in fused] == [iteration.reward for iteration in separate]


def test_one_engine_is_started_for_all_parts(runs: tuple[LocalRun, LocalRun]) -> None:
    starts = []
    for run in runs:
        logs = [path.read_text() for path in sorted((run.workdir / "logs").iterdir())]
        starts.append(
            sum(" engine " in line for text in logs for line in text.splitlines() if "seconds by phase" in line)
        )
    assert starts[1] <= starts[0] - (len(ROLLOUT_STAGES) - 1) - (len(PART_STAGES) - 1), starts


def test_a_killed_rollout_goes_on_where_it_stopped(tmp_path: Path, runs: tuple[LocalRun, LocalRun]) -> None:
    run = write_run(tmp_path, load_testbed(), {**TINY, "iterations": 1, "rollout": "Fused"})
    prompts = RunLayout(run.workdir).stage(Stage.PROMPTS, 0) / "manifest.json"
    with run.start() as process:
        run.until(process, "runs rollout")
        while not prompts.exists():
            assert process.poll() is None
        written = prompts.read_bytes()
        stage_process(process.pid).kill()
        _, errors = process.communicate()
    assert process.returncode == 0, f"{errors}\n{run.logs()}"
    stages = {entry.stage: entry for entry in run.status.iterations[0].stages}
    assert stages[Stage.ROLLOUT].attempt == 2
    assert prompts.read_bytes() == written
    assert manifest(run, Stage.JUDGE, 0).digest == manifest(runs[1], Stage.JUDGE, 0).digest


def test_shards_side_by_side_leave_what_shards_of_separate_jobs_leave(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two processes on one folder, as two pods on a volume: one is killed once, and both evaluate the iteration before."""
    separate = finished_run(tmp_path_factory, IN_SHARDS).run
    stored = read_run(Workdir(separate.workdir))
    assert stored is not None
    evaluation = stage_folder(Stage.EVALUATE, 0)
    root = tmp_path / "fused"
    for folder in ("model", "iterations/000"):
        shutil.copytree(separate.workdir / folder, root / folder)
    shutil.rmtree(root / evaluation)
    config = rollout_of_iteration_1(stored)
    (root / "stage.json").write_text(config.to_json())
    first = start_shard(root, 0)
    late = start_shard(root, 1)
    until_there(root / "iterations/001/rollouts/shard-001/part-00000.parquet", late)
    late.kill()
    late.wait()
    again = start_shard(root, 1)
    assert [process.wait(600) for process in (first, again)] == [0, 0]
    results = [StageResult.decode((root / f"result-{index}").read_bytes()) for index in (0, 1)]
    assert [list(found.parts) for found in results] == [
        list(PART_STAGES),
        [stage for stage in PART_STAGES if stage is not Stage.PROMPTS],
    ]
    before, after = ({entry.stage: entry.artifact for entry in found.stages} for found in stored.status.iterations)
    for stage in (Stage.GENERATE, Stage.JUDGE):
        artifacts = [found.parts[stage].artifact for found in results]
        assert combine_artifacts(stage_folder(stage, 1), artifacts) == after[stage]
    joined = [found.parts[Stage.EVALUATE].artifact for found in results]
    assert before[Stage.EVALUATE] in joined, "the shares are joined into what separate shards have left"


def rollout_of_iteration_1(stored: AlignmentRun) -> StageConfig:
    """The rollout's configuration, had the run been fused, and trained its first iteration just now."""
    status = stored.status
    trained = status.iterations[0]
    stages = tuple(entry for entry in trained.stages if entry.stage is not Stage.EVALUATE)
    trained = trained.evolve(stages=stages, evaluation=None, win_rate=None)
    spec = stored.spec.model_copy(update={"rollout": Rollout.FUSED})
    now = AlignmentRunStatus(fetch=status.fetch, iterations=(trained,))
    run = stored.model_copy(update={"spec": spec, "status": now})
    return config_on_testbed(run, Step(Stage.ROLLOUT, 1))
