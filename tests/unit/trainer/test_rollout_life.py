"""A rollout through the real life cycle: its parts in order, what they pass on, how they fail, and how they go on."""

import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import RolloutParams, StageConfig
from dynalign_contract.errors import BadInputError
from dynalign_contract.layout import stage_folder
from dynalign_contract.metrics import EvaluateMetrics, GenerateMetrics, RolloutMetrics
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.manifests import labels
from dynalign_trainer.runtime import lifecycle
from dynalign_trainer.runtime.context import StageContext, StageOutput
from support.builders import a_run
from support.planning import config_of
from support.simulation import Simulation

Run = Callable[[StageContext[Any]], StageOutput[Any]]


def writes(context: StageContext[Any]) -> StageOutput[Any]:
    (context.folder / "x").write_text(f"{context.config.stage} {context.shard}")
    return StageOutput(files={"x": 1})


class Pods:
    """The pods of a rollout on one folder; its parts are the plan's, its stages are scripted."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, shards: int = 1, iteration: int = 0, action: str = "Continue"
    ) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        evaluation = {"onRegression": action}
        run = a_run().with_spec(rollout="Fused", evaluation=evaluation).with_iterations(2).with_shards(shards).build()
        planned = config_of(Simulation(run).until(Stage.ROLLOUT, iteration), f"rollout of iteration {iteration}")
        assert isinstance(planned.params, RolloutParams)
        parts = tuple(part.model_copy(update={"inputs": {}}) for part in planned.params.parts)
        params = planned.params.model_copy(update={"parts": parts})
        self.config: StageConfig = planned.model_copy(update={"params": params})
        (root / "stage.json").write_text(self.config.to_json())
        self.script({})

    def script(self, stages: dict[Stage, Run]) -> None:
        """What the stages do; those that are not named write one file."""
        for stage in PART_STAGES:
            module = types.ModuleType(f"scripted_{stage}")
            module.run = stages.get(stage, writes)  # type: ignore[attr-defined]
            self._monkeypatch.setitem(sys.modules, module.__name__, module)
            self._monkeypatch.setitem(lifecycle._DOORS, stage, module.__name__)

    def run(self, index: int = 0) -> StageResult:
        result = self.root / f"result-{index}"
        code = lifecycle.run_stage(self.root / "stage.json", self.root, result, lifecycle.Place(index=index))
        found = StageResult.decode(result.read_bytes())
        assert found.exit_code == code
        return found


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    return Pods(tmp_path, monkeypatch)


def test_each_part_gets_what_the_one_before_has_made(pods: Pods) -> None:
    seen: dict[Stage, dict[str, Path]] = {}

    def looks(context: StageContext[Any]) -> StageOutput[Any]:
        seen[context.config.stage] = {name: folders[0] for name, folders in context.inputs.items()}
        context.telemetry.useful.add(2.0)
        context.warn(f"{context.config.stage} warns")
        return writes(context)

    pods.script(dict.fromkeys(ROLLOUT_STAGES, looks))
    result = pods.run()
    folder = {stage: pods.root / stage_folder(stage, 0) for stage in ROLLOUT_STAGES}
    assert seen == {
        Stage.PROMPTS: {},
        Stage.GENERATE: {"prompts": folder[Stage.PROMPTS]},
        Stage.JUDGE: {"rollouts": folder[Stage.GENERATE]},
    }
    assert list(result.parts) == list(ROLLOUT_STAGES)
    assert result.artifact == result.parts[Stage.JUDGE].artifact
    assert result.warnings == ("prompts: prompts warns", "generate: generate warns", "judge: judge warns")
    values = {metric.name: metric.value for metric in result.metrics}
    assert values[RolloutMetrics.useful_seconds.name] == 6.0


@pytest.mark.parametrize(
    ("action", "regressed", "ends"),
    [("Continue", 1.0, False), ("Rollback", 1.0, True), ("Stop", 1.0, True), ("Stop", 0.0, False)],
)
def test_an_evaluation_ends_the_rollout_where_the_run_does_not_go_on_with_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, regressed: float, *, ends: bool
) -> None:
    """The planner that made the configuration takes the result; the next attempt does not evaluate again."""
    pods = Pods(tmp_path, monkeypatch, iteration=1, action=action)

    def evaluates(context: StageContext[Any]) -> StageOutput[Any]:
        assert context.config.iteration == 0
        return StageOutput(files=dict(writes(context).files), metrics={EvaluateMetrics.regressed: regressed})

    pods.script({Stage.EVALUATE: evaluates})
    result = pods.run()
    assert list(result.parts) == ([Stage.EVALUATE] if ends else list(PART_STAGES))
    assert result.parts[Stage.EVALUATE].artifact.path == stage_folder(Stage.EVALUATE, 0)
    assert result.artifact == list(result.parts.values())[-1].artifact
    again = pods.run()
    assert (again.outcome, list(again.parts)) == (Outcome.SKIPPED, list(result.parts))


def test_the_next_attempt_does_what_is_left(pods: Pods) -> None:
    def fails(_: StageContext[Any]) -> StageOutput[Any]:
        raise BadInputError("no prompt has a question")

    pods.script({Stage.JUDGE: fails})
    failed = pods.run()
    assert (failed.exit_code, failed.error and failed.error.message) == (11, "no prompt has a question")

    def must_not_run(_: StageContext[Any]) -> StageOutput[Any]:
        raise AssertionError("it was done already")

    pods.script({Stage.PROMPTS: must_not_run, Stage.GENERATE: must_not_run})
    result = pods.run()
    assert result.outcome is Outcome.SUCCEEDED
    assert [part.is_skipped for part in result.parts.values()] == [True, True, False]
    pods.script(dict.fromkeys(ROLLOUT_STAGES, must_not_run))
    assert pods.run().outcome is Outcome.SKIPPED


def test_an_unforeseen_error_names_the_part_and_the_pods_and_is_final_when_it_comes_again(pods: Pods) -> None:
    def breaks(_: StageContext[Any]) -> StageOutput[Any]:
        raise KeyError("colour")

    pods.script({Stage.GENERATE: breaks})
    first, second = pods.run(), pods.run()
    assert first.error is not None
    assert "generate of iteration 0 failed with KeyError" in first.error.message
    assert f"{labels.STAGE}=rollout" in first.error.message or "the log /" in first.error.message
    assert second.exit_code == 13, "the same error in the same place with the same inputs"


def test_shards_wait_for_each_other_and_write_the_prompts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pods, order, lock = Pods(tmp_path, monkeypatch, shards=2), list[tuple[Stage, int]](), threading.Lock()

    def notes(context: StageContext[Any]) -> StageOutput[Any]:
        with lock:
            order.append((context.config.stage, context.shard))
        return writes(context)

    pods.script(dict.fromkeys(ROLLOUT_STAGES, notes))
    monkeypatch.setattr("signal.signal", lambda *_: None)  # these pods are threads
    found: dict[int, StageResult] = {}
    threads = [threading.Thread(target=lambda i=index: found.update({i: pods.run(i)})) for index in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(order, key=lambda entry: (ROLLOUT_STAGES.index(entry[0]), entry[1])) == [
        (Stage.PROMPTS, 0),
        *((stage, shard) for stage in (Stage.GENERATE, Stage.JUDGE) for shard in (0, 1)),
    ]
    first_judge = next(i for i, (stage, _) in enumerate(order) if stage is Stage.JUDGE)
    assert {entry for entry in order[:first_judge] if entry[0] is Stage.GENERATE} == {
        (Stage.GENERATE, 0),
        (Stage.GENERATE, 1),
    }
    assert [list(found[index].parts) for index in (0, 1)] == [list(ROLLOUT_STAGES), list(ROLLOUT_STAGES[1:])]
    assert GenerateMetrics.stage in found[1].parts
