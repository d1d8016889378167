"""An evaluation in shards, as the planner configures it, on what a real run has left: what one pod leaves, whoever dies."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import ANSWERS_FILE, stage_folder
from dynalign_contract.manifest import read_listed
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.planning.observed import Step
from lab.local_runs import LocalRun, write_run
from lab.testbed import load_testbed
from support.stage_processes import config_on_testbed, start_shard, until_there

pytestmark = pytest.mark.slow

FIELDS: dict[str, Any] = {
    "iterations": 1,
    "prompts": {"perIteration": 4, "heldOut": 5, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 32, "promptsPerPart": 2},
    "training": {"promptsPerStep": 1, "lora": {"rank": 8}, "gradientCheckpointing": False},
    "evaluation": {"capability": {"tasks": ["dynalign_choices", "dynalign_instructions"], "limit": 5}},
}


def in_shards(run: LocalRun, shards: int) -> StageConfig:
    """The configuration of the run's evaluation, were it split over so many shards."""
    stored = read_run(Workdir(run.workdir))
    assert stored is not None
    generation = stored.spec.generation.model_copy(update={"shards": shards})
    wide = stored.model_copy(update={"spec": stored.spec.model_copy(update={"generation": generation})})
    return config_on_testbed(wide, Step(Stage.EVALUATE, 0))


def test_a_shard_that_is_killed_comes_back_and_joins_what_one_pod_has_left(tmp_path: Path) -> None:
    """The other shard has ended by then, and has waited for nobody."""
    (tmp_path / "alone").mkdir()
    alone = write_run(tmp_path / "alone", load_testbed(), FIELDS)
    ended = alone.finish()
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{alone.logs()}"
    folder = stage_folder(Stage.EVALUATE, 0)
    expected = read_listed(alone.workdir / folder)

    root = tmp_path / "shards"
    shutil.copytree(alone.workdir, root, ignore=shutil.ignore_patterns("evaluation", "export", ".jobs", "cache"))
    config = in_shards(alone, 2)
    (root / "stage.json").write_text(config.to_json())
    late = start_shard(root, 1)
    until_there(root / config.shard(1) / ANSWERS_FILE, late)
    late.send_signal(signal.SIGKILL)
    late.wait()
    assert start_shard(root, 0).wait(600) == 0
    assert not (root / folder).exists()
    assert start_shard(root, 1).wait(600) == 0
    results = [StageResult.decode((root / f"result-{index}").read_bytes()) for index in (0, 1)]
    assert [found.outcome for found in results] == [Outcome.SUCCEEDED] * 2
    assert [found.artifact and found.artifact.path for found in results] == [config.shard(0), folder]
    joined = read_listed(root / folder)
    assert joined.digest == expected.digest
    assert {m.name: m.value for m in joined.metrics if not m.name.endswith("_seconds")} == {
        m.name: m.value for m in expected.metrics if not m.name.endswith("_seconds")
    }
