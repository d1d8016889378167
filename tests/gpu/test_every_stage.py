"""`dynalign run` with the bundled SmolLM2 on a GPU: every stage, two iterations, killed in training and gone on with."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign_contract.layout import MANIFEST, REPORT_FILE, RunLayout
from dynalign_contract.manifest import Manifest, read_manifest
from dynalign_contract.metrics import TrainMetrics, read_metrics
from dynalign_contract.records import ROLLOUT, read_parts
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import Phase
from lab.local_runs import LocalRun
from support.stage_processes import kill_stage

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2.yaml"
ITERATIONS = 2
"""The second one samples with the adapter of the first, by other kernels of the engine than the base model's."""
BFLOAT16_DIFFERENCE = 0.05
"""Nats. Sampler and trainer each round to 8 bits; in float32 on a CPU the mean is below 1e-4."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run whose first training was killed after its first checkpoint, and that was then started again."""
    folder = tmp_path_factory.mktemp("gpu")
    written: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    written["spec"]["iterations"] = ITERATIONS
    written["spec"]["training"] |= {"checkpointSteps": 1, "promptsPerStep": 1}
    (folder / "run.yaml").write_text(yaml.safe_dump(written))
    run = LocalRun(folder / "run.yaml", folder / "run")
    checkpoint = RunLayout(run.workdir).checkpoints(0) / "checkpoint-1" / MANIFEST
    with run.start() as process:
        while not checkpoint.exists():
            assert process.poll() is None, f"{process.communicate()}\n{run.logs()}"
            time.sleep(0.01)  # between two looks at the folder
        kill_stage(process.pid)
        output, errors = process.communicate(timeout=1100)
    assert process.returncode == 0, f"{output}\n{errors}\n{run.logs()}"
    return run


def manifest_of(run: LocalRun, stage: Stage, iteration: int) -> Manifest:
    found = read_manifest(RunLayout(run.workdir).stage(stage, iteration))
    assert found is not None
    return found


def test_every_stage_leaves_its_artifact(run: LocalRun) -> None:
    assert run.status.phase is Phase.SUCCEEDED
    layout = RunLayout(run.workdir)
    for stage in (Stage.FETCH, Stage.EXPORT):
        assert read_manifest(layout.stage(stage)) is not None
    for iteration in range(ITERATIONS):
        assert all(manifest_of(run, stage, iteration).files for stage in ITERATION_STAGES)
    assert REPORT_FILE in {path.name for path in layout.root.iterdir()}


@pytest.mark.parametrize("iteration", range(ITERATIONS))
def test_sampler_and_trainer_agree_on_what_tokens_are_worth(run: LocalRun, iteration: int) -> None:
    metrics = read_metrics(Stage.TRAIN, manifest_of(run, Stage.TRAIN, iteration).metrics)
    assert 0 < metrics[TrainMetrics.logprob_difference] < BFLOAT16_DIFFERENCE
    assert metrics[TrainMetrics.ratio_mean] == pytest.approx(1, abs=0.02)
    assert metrics[TrainMetrics.rejected_share] == 0
    assert metrics[TrainMetrics.norm_change] > 0


def test_log_probabilities_are_those_of_the_sampled_tokens(run: LocalRun) -> None:
    rows = read_parts([RunLayout(run.workdir).stage(Stage.GENERATE, 0)], ROLLOUT)
    assert all(len(row["logprobs"]) == len(row["completion_ids"]) for row in rows)
    assert all(value <= 0 for row in rows for value in row["logprobs"])
    assert len({tuple(row["completion_ids"]) for row in rows}) > len(rows) // 2, "candidates differ"


def test_training_went_on_from_its_checkpoint_and_sampled_nothing_again(run: LocalRun) -> None:
    attempts = {entry.stage: entry.attempt for entry in run.status.iterations[0].stages}
    assert {stage for stage, attempt in attempts.items() if attempt > 1} == {Stage.TRAIN}
    metrics = read_metrics(Stage.TRAIN, manifest_of(run, Stage.TRAIN, 0).metrics)
    assert metrics[TrainMetrics.trained_steps] > 1
