"""Shards of a stage that leaves one artifact, through the real life cycle: who joins their shares, and what goes wrong."""

import shutil
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import EvaluateParams, Policy, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import (
    Manifest,
    describe_file,
    read_listed,
    reference_to,
    verify_artifact,
    write_manifest,
)
from dynalign_contract.metrics import EvaluateMetrics, read_metrics
from dynalign_contract.objective import builtin_objective
from dynalign_contract.result import ArtifactRef, Outcome, StageResult
from dynalign_contract.settings import EvaluationSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime import lifecycle
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.joining import Shares

Run = Callable[[StageContext[Any]], StageOutput[Any]]
COUNT = 3
CONFIG = StageConfig(
    run="r",
    iteration=0,
    shards=COUNT,
    params=EvaluateParams(
        objective=builtin_objective("collective-agency"),
        evaluation=EvaluationSettings(),
        policy=Policy(version="iteration-000"),
        max_tokens=8,
    ),
)


def works(context: StageContext[Any]) -> StageOutput[Any]:
    """A share holds its shard's number, the artifact those of all; a share takes ten seconds a number."""
    text = "".join((folder / "x").read_text() for folder in context.shares) or str(context.shard)
    (context.folder / "x").write_text(text)
    if context.shares:
        return StageOutput(files={"x": 1}, metrics={EvaluateMetrics.win_rate.value: 0.5})
    context.telemetry.useful.add(10.0 * (1 + context.shard))
    return StageOutput(files={"x": 1}, metrics={EvaluateMetrics.judge_requests: 7}, producers={"judge": "1.0"})


class Pods:
    """The pods of one evaluation, on one folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        self.folder = root / CONFIG.folder
        self.script(works)

    def script(self, run: Run) -> None:
        """What the stage does from now on."""
        module = types.ModuleType("scripted_evaluate")
        module.run = run  # type: ignore[attr-defined]
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        self._monkeypatch.setitem(lifecycle._DOORS, Stage.EVALUATE, module.__name__)

    def run(self, index: int, config: StageConfig = CONFIG) -> StageResult:
        (self.root / f"stage-{index}.json").write_text(config.to_json())
        result = self.root / f"result-{index}"
        code = lifecycle.run_stage(self.root / f"stage-{index}.json", self.root, result, lifecycle.Place(index=index))
        found = StageResult.decode(result.read_bytes())
        assert found.exit_code == code
        return found

    def finish_shares(self, *indexes: int) -> None:
        """These shards have finished, and some other pod has got no further."""
        for index in indexes:
            shares = Shares(self.root, CONFIG, index)
            folder = self.root / CONFIG.shard(index)
            if not folder.exists():
                folder.mkdir(parents=True)
                (folder / "x").write_text(str(index))
                files = describe_file(folder, "x", 1)
                write_manifest(
                    folder, Manifest(stage=Stage.EVALUATE, iteration=0, config_digest=CONFIG.digest, files=(files,))
                )
            shares._mark(index).touch()


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    return Pods(tmp_path, monkeypatch)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_last_one_joins_and_nobody_waits(pods: Pods, order: tuple[int, ...]) -> None:
    *early, last = [pods.run(index) for index in order]
    assert [found.artifact and found.artifact.path for found in early] == [CONFIG.shard(i) for i in order[:-1]]
    assert last.artifact is not None
    assert (last.artifact.path, last.artifact.shards) == (CONFIG.folder, 1)
    (folder,) = verify_artifact(pods.root, last.artifact)
    assert (folder / "x").read_text() == "012"
    assert not (pods.root / CONFIG.shares).parent.exists(), "nobody needs the shares any more"


def test_the_manifest_tells_of_all_shards_and_each_result_of_its_own_pod(pods: Pods) -> None:
    results = [pods.run(index) for index in range(COUNT)]
    manifest = read_listed(pods.folder)
    whole = read_metrics(Stage.EVALUATE, manifest.metrics)
    assert (whole[EvaluateMetrics.useful_seconds], whole[EvaluateMetrics.judge_requests]) == (60.0, 21.0)
    assert whole[EvaluateMetrics.win_rate.value] == 0.5
    assert manifest.producers["judge"] == "1.0"
    own = [read_metrics(Stage.EVALUATE, found.metrics)[EvaluateMetrics.useful_seconds] for found in results]
    assert own == [10.0, 20.0, 30.0]


def test_a_finished_evaluation_is_found_by_every_pod_of_the_next_attempt(pods: Pods) -> None:
    artifact = [pods.run(index) for index in range(COUNT)][-1].artifact

    def must_not_run(_: StageContext[Any]) -> StageOutput[Any]:
        raise AssertionError("it was done already")

    pods.script(must_not_run)
    again = [pods.run(index, CONFIG.model_copy(update={"attempt": 2})) for index in range(COUNT)]
    assert {found.outcome for found in again} == {Outcome.SKIPPED}
    assert [found.artifact for found in again] == [artifact] * COUNT


def test_of_those_that_finish_at_once_one_joins(pods: Pods) -> None:
    for _ in range(20):
        pods.finish_shares(*range(COUNT))
        ready, turns = threading.Barrier(COUNT), dict[int, bool]()

        def finish(index: int, ready: threading.Barrier = ready, turns: dict[int, bool] = turns) -> None:
            ready.wait()
            turns[index] = Shares(pods.root, CONFIG, index).take_turn()

        threads = [threading.Thread(target=finish, args=(index,)) for index in range(COUNT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(turns.values()) == 1
        shutil.rmtree(pods.root / CONFIG.shares)


def test_a_pod_that_dies_while_it_joins_is_replaced_by_its_successor_alone(pods: Pods) -> None:
    pods.finish_shares(0, 1)

    def dies(context: StageContext[Any]) -> StageOutput[Any]:
        if context.shares:
            raise SystemExit(137)
        return works(context)

    pods.script(dies)
    assert pods.run(2).outcome is Outcome.FAILED
    pods.script(works)
    assert pods.run(1).artifact == reference_to(CONFIG.shard(1), read_listed(pods.root / CONFIG.shard(1)))
    joined = pods.run(2)
    assert joined.artifact is not None
    assert joined.artifact.path == CONFIG.folder
    times = read_metrics(Stage.EVALUATE, joined.metrics)
    assert (times[EvaluateMetrics.useful_seconds], times[EvaluateMetrics.preserved_seconds]) == (0.0, 30.0)


def test_a_pod_that_dies_before_it_reports_leaves_the_artifact(pods: Pods) -> None:
    artifact = [pods.run(index) for index in range(COUNT)][-1].artifact
    pods.finish_shares(1)  # what it had no time to remove
    found = pods.run(2)
    assert (found.outcome, found.artifact) == (Outcome.SKIPPED, artifact)
    assert not (pods.root / CONFIG.shares).parent.exists()


def test_a_pod_that_comes_back_while_another_removes_the_shares_finds_the_artifact(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own share vanishes while it is verified: that is no damage."""
    pods.finish_shares(0, 1, 2)

    def late(root: Path, artifact: ArtifactRef) -> tuple[Path, ...]:
        if artifact.path == CONFIG.shard(0):
            monkeypatch.setattr(lifecycle, "verify_artifact", verify_artifact)
            assert pods.run(2).outcome is Outcome.SUCCEEDED
        return verify_artifact(root, artifact)

    monkeypatch.setattr(lifecycle, "verify_artifact", late)
    found = pods.run(0)
    assert found.artifact is not None
    assert (found.outcome, found.artifact.path) == (Outcome.SKIPPED, CONFIG.folder)


def test_a_damaged_share_is_refused_and_made_again_once_it_is_removed(pods: Pods) -> None:
    pods.run(0)
    pods.run(1)
    share = pods.root / CONFIG.shard(1)
    (share / "x").write_text("9")
    refused = pods.run(2)
    assert (refused.exit_code, refused.error and refused.error.reason) == (ExitCode.BAD_INPUT, "CorruptArtifact")
    assert refused.error is not None
    assert str(share) in refused.error.message
    shutil.rmtree(share)
    early, late = pods.run(2), pods.run(1)
    assert early.artifact is not None
    assert early.artifact.path == CONFIG.shard(2), "the share that was removed is not there yet"
    assert late.artifact is not None
    assert late.artifact.path == CONFIG.folder
    assert (pods.folder / "x").read_text() == "012"


def test_shares_of_another_configuration_are_not_joined(pods: Pods) -> None:
    other = CONFIG.model_copy(update={"seed": 1})
    pods.run(0, other)
    pods.finish_shares(1, 2)
    foreign = read_listed(pods.root / other.shard(0))
    target = pods.root / CONFIG.shard(0)
    target.mkdir(parents=True)
    shutil.copy(pods.root / other.shard(0) / "x", target)
    (target / MANIFEST).write_bytes(foreign.encode())
    assert not Shares(pods.root, CONFIG, 2).take_turn()
    result = pods.run(0)
    assert result.artifact is not None
    assert result.artifact.path == CONFIG.folder
    assert read_listed(pods.folder).config_digest == CONFIG.digest
    assert not (pods.root / other.shares).exists(), "those of an earlier configuration are removed with the others"


def test_inputs_are_verified_where_shares_are_joined_and_weights_are_not_read_again(pods: Pods) -> None:
    seen: list[set[str]] = []

    def looks(context: StageContext[Any]) -> StageOutput[Any]:
        seen.append(set(context.inputs))
        return works(context)

    inputs = {}
    for name in ("model", "heldout", "evaluation-000", "answers", "iteration-000"):
        folder = pods.root / "inputs" / name
        folder.mkdir(parents=True)
        manifest = Manifest(stage=Stage.FETCH, config_digest="x", files=())
        write_manifest(folder, manifest)
        inputs[name] = reference_to(f"inputs/{name}", manifest)
    pods.script(looks)
    for index in range(COUNT):
        pods.run(index, CONFIG.model_copy(update={"inputs": inputs}))
    assert seen == [set(inputs)] * COUNT + [{"heldout", "evaluation-000", "answers"}]
