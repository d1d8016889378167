"""A rollout through the real life cycle: its parts in order, what they pass on, how they fail, and how they go on."""

import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import RolloutParams, StageConfig
from dynalign_contract.errors import BadInputError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import stage_folder
from dynalign_contract.manifest import read_manifest
from dynalign_contract.metrics import EvaluateMetrics, GenerateMetrics, RolloutMetrics
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.manifests import labels
from dynalign_trainer.runtime import leases, lifecycle, rollout, shard_leases
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.helping import OpenHelper
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

    def script(self, stages: dict[Stage, Run], open_helper: OpenHelper | None = None) -> None:
        """What the stages do; those that are not named write one file. Pods that wait for prompts open the helper."""
        helping = types.ModuleType("scripted_help")
        helping.open_helper = open_helper  # type: ignore[attr-defined]
        self._monkeypatch.setitem(sys.modules, helping.__name__, helping)
        helpers = {} if open_helper is None else {Stage.PROMPTS: helping.__name__}
        self._monkeypatch.setattr(lifecycle, "_HELPERS", helpers)
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


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    """Two pods whose leases expire within moments, in the second iteration, whose rollout begins with an evaluation."""
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.5)
    monkeypatch.setattr(leases, "_RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(shard_leases, "_RENEW_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(shard_leases, "_SETTLED_SECONDS", 0.1)
    monkeypatch.setattr(rollout, "_LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # these pods may be threads
    return Pods(tmp_path, monkeypatch, shards=2, iteration=1, action="Stop")


def must_not_run(_: StageContext[Any]) -> StageOutput[Any]:
    raise AssertionError("it was made already")


def texts(pods: Pods) -> dict[str, str]:
    return {str(path.relative_to(pods.root)): path.read_text() for path in sorted(pods.root.rglob("x"))}


@pytest.mark.parametrize("present", [0, 1])
def test_a_rollout_goes_on_with_any_of_its_pods(two: Pods, tmp_path: Path, present: int) -> None:
    """The other one comes later, finds what everybody waits for made, and has its judgements left, which nobody does."""
    alone, other = two.run(present), 1 - present
    assert alone.outcome is Outcome.SUCCEEDED
    before = texts(two)
    made = {text for text in before.values() if not text.startswith("evaluate")}
    assert made == {"prompts 0", "generate 0", "generate 1", f"judge {present}"}
    two.script({stage: must_not_run for stage in PART_STAGES if stage is not Stage.JUDGE})
    late = two.run(other)
    assert late.outcome is Outcome.SUCCEEDED
    assert [stage for stage, part in late.parts.items() if not part.is_skipped] == [Stage.JUDGE]
    after = texts(two)
    assert {name: after[name] for name in before} == before
    assert [after[name] for name in after.keys() - before.keys()] == [f"judge {other}"]
    expected = [list(PART_STAGES), [stage for stage in PART_STAGES if stage is not Stage.PROMPTS]]
    assert [list(result.parts) for result in (alone, late)] == [expected[present], expected[other]]
    assert not list(tmp_path.rglob("*-leases"))


def test_the_time_of_what_a_pod_makes_for_another_is_its_own(two: Pods) -> None:
    def works(context: StageContext[Any]) -> StageOutput[Any]:
        context.telemetry.useful.add(2.0)
        return writes(context)

    two.script(dict.fromkeys(ROLLOUT_STAGES, works))
    values = {metric.name: metric.value for metric in two.run().metrics}
    assert values[RolloutMetrics.useful_seconds.name] == pytest.approx(2.0 * 4), (
        "prompts, two shards of generate, one of judge"
    )


class Workbench:
    """Prompts whose pod leaves ten pieces of work to others."""

    def __init__(self, pieces: int = 10) -> None:
        self.left, self.is_open, self.is_closed = pieces, threading.Event(), threading.Event()

    def write(self, context: StageContext[Any]) -> StageOutput[Any]:
        """The prompts, once others have done all pieces."""
        assert self.is_open.wait(60)
        while self.left:
            time.sleep(0.01)  # between two looks at what is left
        return writes(context)

    def open_helper(self, context: StageContext[Any]) -> "Workbench":
        assert not (context.folder / "x").exists()
        self._telemetry = context.telemetry
        self.is_open.set()
        return self

    def help(self) -> bool:
        if not self.left:
            return False
        self._telemetry.useful.add(1.0)
        self.left -= 1
        return True

    def close(self) -> None:
        self.is_closed.set()


def test_a_pod_that_waits_for_the_prompts_helps_with_them(two: Pods) -> None:
    bench = Workbench()
    two.script({Stage.PROMPTS: bench.write}, bench.open_helper)
    found: dict[int, StageResult] = {}
    threads = [threading.Thread(target=lambda i=index: found.update({i: two.run(i)})) for index in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bench.is_closed.is_set()
    assert Stage.PROMPTS not in found[1].parts
    values = {metric.name: metric.value for metric in found[1].metrics}
    assert values[RolloutMetrics.useful_seconds.name] == 10.0
    assert texts(two)[f"{stage_folder(Stage.PROMPTS, 1)}/x"] == "prompts 0"


def test_a_pod_that_helps_takes_over_from_one_that_is_lost(two: Pods) -> None:
    """Nobody asks for anything, for nobody writes the prompts."""
    bench = Workbench(pieces=0)
    two.script({Stage.PROMPTS: bench.write}, bench.open_helper)
    assert two.run(1).outcome is Outcome.SUCCEEDED
    assert bench.is_closed.is_set() is False
    assert texts(two)[f"{stage_folder(Stage.PROMPTS, 1)}/x"] == "prompts 0"


def test_an_error_while_helping_leaves_the_writer_s_folder_alone(two: Pods) -> None:
    """It is tried again like any other: the same error of the pod that writes is not the second one."""

    def breaks(_: StageContext[Any]) -> Any:
        raise KeyError("colour")

    two.script({}, breaks)
    failed = two.run(1)
    assert failed.error is not None
    assert "help with prompts of iteration 1 failed with KeyError" in failed.error.message
    assert not list((two.root / stage_folder(Stage.PROMPTS, 1)).glob(".*"))
    assert two.run(1).exit_code == failed.exit_code


class Makers:
    """Notes which pod has made which shard."""

    def __init__(self, seconds: Callable[[Stage, int], float]) -> None:
        self.made: list[tuple[Stage, int, str]] = []
        self._seconds, self._lock = seconds, threading.Lock()

    def __call__(self, context: StageContext[Any]) -> StageOutput[Any]:
        stage, shard = context.config.stage, context.shard
        if not context.shares:
            with self._lock:
                self.made.append((stage, shard, threading.current_thread().name))
            time.sleep(self._seconds(stage, shard))
        return writes(context)

    def of(self, stage: Stage, shard: int) -> list[str]:
        return [name for a, b, name in self.made if (a, b) == (stage, shard)]


def start(two: Pods, index: int) -> threading.Thread:
    pod = threading.Thread(target=two.run, args=(index,), name=str(index))
    pod.start()
    return pod


def test_a_pod_that_takes_longer_than_a_lease_lasts_is_not_replaced(two: Pods) -> None:
    makers = Makers(lambda stage, shard: 1.5 if (stage, shard) == (Stage.GENERATE, 1) else 0.0)
    two.script(dict.fromkeys(PART_STAGES, makers))
    for pod in [start(two, index) for index in (0, 1)]:
        pod.join()
    assert makers.of(Stage.GENERATE, 1) == ["1"]
    assert len(makers.made) == len({(stage, shard) for stage, shard, _ in makers.made}) == 7


def test_a_pod_that_comes_while_another_makes_its_shard_waits_for_it(two: Pods) -> None:
    makers = Makers(lambda stage, shard: 2.0 if (stage, shard) == (Stage.GENERATE, 1) else 0.0)
    two.script(dict.fromkeys(PART_STAGES, makers))
    first = start(two, 0)
    while not makers.of(Stage.GENERATE, 1):
        time.sleep(0.02)
    late = start(two, 1)
    for pod in (first, late):
        pod.join()
    assert makers.of(Stage.GENERATE, 1) == ["0"]
    assert len(makers.made) == len({(stage, shard) for stage, shard, _ in makers.made}) == 7


def test_a_pod_that_died_while_it_joined_the_shares_is_replaced(two: Pods) -> None:
    """Its lock names it, and only what stands in for it takes that up."""

    def fails_to_join(context: StageContext[Any]) -> StageOutput[Any]:
        if context.shares:
            raise BadInputError("out of memory")
        return writes(context)

    two.script({Stage.EVALUATE: fails_to_join})
    assert two.run(1).exit_code == 11, "it stood in for shard 0, whose share came last"
    two.script({})
    assert two.run(1).outcome is Outcome.SUCCEEDED
    assert read_manifest(two.root / stage_folder(Stage.EVALUATE, 0)) is not None


def test_sigterm_ends_the_wait_for_other_pods(two: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 60.0)
    stopping = threading.Event()
    monkeypatch.setattr(lifecycle, "_watch_sigterm", lambda: stopping)
    threading.Timer(0.5, stopping.set).start()
    assert two.run(0).exit_code == ExitCode.TERMINATED
