"""The life of a stage: skipped when done, resumed when not, and always a result with the right exit code."""

import os
import platform
import signal
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract import manifest
from dynalign_contract.config import FetchParams, GenerateParams, StageConfig
from dynalign_contract.errors import BadInputError, UnfitError
from dynalign_contract.files import sha256_of
from dynalign_contract.layout import MANIFEST, RunLayout
from dynalign_contract.manifest import read_manifest, verify_artifact
from dynalign_contract.metrics import GenerateMetrics, JudgeMetrics, TrainMetrics
from dynalign_contract.result import Outcome, StageResult, combine_artifacts
from dynalign_contract.settings import GenerationSettings
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.stage_metrics import LiveMetrics, parse_metrics
from dynalign_trainer.runtime import lifecycle as stage_life
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.phases import process_start
from dynalign_trainer.runtime.telemetry import Telemetry, TelemetryServer

Run = Callable[[StageContext[Any]], StageOutput[Any]]
GENERATE = StageConfig(run="r", iteration=0, params=GenerateParams(generation=GenerationSettings()))


class Harness:
    """Runs a stage function through the real life cycle on a folder of its own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch

    def run(self, run: Run, config: StageConfig = GENERATE, shard: int = 0) -> StageResult:
        module = types.ModuleType("stage_under_test")
        module.run = run  # type: ignore[attr-defined]
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        self._monkeypatch.setitem(stage_life._DOORS, config.stage, module.__name__)
        (self.root / "stage.json").write_text(config.to_json())
        return self.run_file(shard)

    def run_file(self, shard: int = 0) -> StageResult:
        code = stage_life.run_stage(
            self.root / "stage.json", self.root, self.root / "result", stage_life.Place(index=shard)
        )
        result = StageResult.decode((self.root / "result").read_bytes())
        assert result.exit_code == code
        return result


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(tmp_path, monkeypatch)


def writes(text: str) -> Run:
    def run(context: StageContext[Any]) -> StageOutput[Any]:
        (context.folder / "x").write_text(text)
        return StageOutput(
            files={"x": 2}, metrics={GenerateMetrics.mean_length: 1.5, GenerateMetrics.mean_logprob: float("nan")}
        )

    return run


def must_not_run(_: StageContext[Any]) -> StageOutput[Any]:
    raise AssertionError("the stage ran although it was done")


def test_a_finished_stage_is_skipped_with_the_same_artifact_and_metrics(harness: Harness) -> None:
    first = harness.run(writes("one"))
    second = harness.run(must_not_run, GENERATE.model_copy(update={"attempt": 2}))
    assert (first.outcome, second.outcome) == (Outcome.SUCCEEDED, Outcome.SKIPPED)
    assert first.artifact == second.artifact
    measured = {"useful_seconds": 0.0, "preserved_seconds": 0.0}
    assert {m.name: m.value for m in second.metrics} == {"mean_length": 1.5, "mean_logprob": None, **measured}


def test_packages_that_took_part_are_recorded_beside_the_libraries(harness: Harness) -> None:
    def run(context: StageContext[Any]) -> StageOutput[Any]:
        return StageOutput(files={}, producers={"own-rewards": "1.2.3", "python": "0"})

    harness.run(run)
    manifest = read_manifest(harness.root / GENERATE.folder)
    assert manifest is not None
    assert manifest.producers["own-rewards"] == "1.2.3"
    assert manifest.producers["python"] == platform.python_version()


def test_the_start_of_useful_work_is_measured_once(harness: Harness) -> None:
    def run(context: StageContext[Any]) -> StageOutput[Any]:
        context.telemetry.begin()
        assert context.telemetry.registry.get_sample_value("dynalign_stage_start_seconds") > 0  # type: ignore[operator]
        context.telemetry.begin(time.time() + 1000)
        return StageOutput(files={})

    result = harness.run(run)
    (start,) = (m.value for m in result.metrics if m.name == "start_seconds")
    assert start is not None
    assert 0 < start < time.time() - process_start()


def test_the_useful_time_of_finished_parts_is_reported_by_the_attempt_that_keeps_them(harness: Harness) -> None:
    def fails(context: StageContext[Any]) -> StageOutput[Any]:
        context.telemetry.useful.add(30)
        context.save_useful_time()
        context.telemetry.useful.add(8)
        raise RuntimeError("boom")

    def goes_on(context: StageContext[Any]) -> StageOutput[Any]:
        with context.telemetry.useful.span():
            context.telemetry.useful.add(0)
        context.telemetry.useful.add(12)
        return StageOutput(files={})

    assert harness.run(fails).exit_code == 1
    done = harness.run(goes_on)
    found = {m.name: m.value or 0.0 for m in done.metrics}
    assert found["preserved_seconds"] == 30
    assert found["useful_seconds"] >= 12
    assert found["start_seconds"] > 0
    assert [path.name for path in (harness.root / GENERATE.folder).iterdir()] == [MANIFEST]


def test_only_the_stages_of_an_iteration_have_useful_time(harness: Harness) -> None:
    fetch = StageConfig(run="r", params=FetchParams(uri="bundled://x"))
    for config, names in ((fetch, set()), (GENERATE, {"useful_seconds", "preserved_seconds"})):
        result = harness.run(lambda _: StageOutput(files={}), config)
        assert {m.name for m in result.metrics} == names


def test_another_configuration_runs_again_on_an_empty_folder(harness: Harness) -> None:
    harness.run(writes("one"))

    def run(context: StageContext[Any]) -> StageOutput[Any]:
        assert [p.name for p in context.folder.iterdir()] == [".config-digest"]
        return writes("two")(context)

    assert harness.run(run, GENERATE.model_copy(update={"seed": 9})).outcome is Outcome.SUCCEEDED


def test_a_failed_attempt_leaves_its_parts_to_the_next(harness: Harness) -> None:
    def fails(context: StageContext[Any]) -> StageOutput[Any]:
        (context.folder / "part").write_text("kept")
        raise RuntimeError("boom")

    def goes_on(context: StageContext[Any]) -> StageOutput[Any]:
        assert (context.folder / "part").read_text() == "kept"
        return StageOutput(files={"part": 0})

    failed = harness.run(fails)
    assert failed.exit_code == 1
    assert failed.error is not None
    assert failed.error.message.startswith("generate of iteration 0 failed with RuntimeError: boom (")
    assert not (harness.root / GENERATE.folder / MANIFEST).exists()
    assert harness.run(goes_on).exit_code == 0


def test_a_finished_artifact_holds_only_what_its_stage_declares(harness: Harness) -> None:
    """What an earlier attempt, a pod that was cut off, or a stranger has left in the folder goes before the manifest."""

    def run(context: StageContext[Any]) -> StageOutput[Any]:
        folder = context.folder
        (folder / "part-00009.parquet").write_text("of a pod that was cut off")
        (folder / ".part-00000.parquet.77.tmp").write_text("half")
        (folder / "nested" / "deeper").mkdir(parents=True)
        (folder / "link").symlink_to(harness.root)
        os.mkfifo(folder / "pipe")
        return writes("one")(context)

    result = harness.run(run)
    assert result.exit_code == 0, result
    assert {path.name for path in (harness.root / GENERATE.folder).iterdir()} == {"x", MANIFEST}
    assert (harness.root / "stage.json").exists(), "a link is removed, not what it leads to"


def test_a_stranger_in_a_finished_input_is_named_and_nothing_is_done(harness: Harness) -> None:
    """A pod on a node that was cut off goes on writing after its Job was replaced."""
    made = harness.run(writes("prompts"))
    assert made.artifact is not None
    reader = GENERATE.model_copy(update={"iteration": 1, "inputs": {"prompts": made.artifact}})
    stranger = harness.root / made.artifact.path / "part-00001.parquet"
    stranger.write_text("late")
    for config in (reader, GENERATE):
        result = harness.run(must_not_run, config)
        assert (result.exit_code, result.error and result.error.reason) == (11, "CorruptArtifact")
        assert result.error is not None
        assert str(stranger) in result.error.message
    stranger.unlink()
    assert harness.run(writes("two"), reader).exit_code == 0


def test_fewer_shards_leave_none_of_the_earlier_ones(harness: Harness) -> None:
    for shards in (3, 2):
        config = GENERATE.model_copy(update={"shards": shards})
        results = [harness.run(writes(str(i)), config, shard=i) for i in range(shards)]
    artifacts = [result.artifact for result in results if result.artifact is not None]
    whole = combine_artifacts(config.folder, artifacts)
    assert len(verify_artifact(harness.root, whole)) == 2
    assert harness.run(writes("one")).exit_code == 0
    assert {path.name for path in (harness.root / GENERATE.folder).iterdir()} == {"x", MANIFEST}


def test_a_mark_that_is_no_file_starts_the_folder_anew(harness: Harness) -> None:
    (harness.root / GENERATE.folder / ".config-digest" / "x").mkdir(parents=True)
    assert harness.run(writes("one")).exit_code == 0


def test_a_damaged_finished_artifact_is_an_error_not_a_skip(harness: Harness) -> None:
    harness.run(writes("one"))
    (harness.root / GENERATE.folder / "x").write_text("two")
    result = harness.run(must_not_run)
    assert result.exit_code == 11
    assert result.error is not None
    assert result.error.reason == "CorruptArtifact"


def test_a_damaged_input_stops_the_stage_before_it_starts(harness: Harness) -> None:
    made = harness.run(writes("prompts"))
    assert made.artifact is not None
    reader = GENERATE.model_copy(update={"iteration": 1, "inputs": {"prompts": made.artifact}})
    (harness.root / made.artifact.path / "x").write_text("other")
    result = harness.run(must_not_run, reader)
    assert (result.exit_code, result.error and result.error.reason) == (11, "CorruptArtifact")


@pytest.mark.parametrize(("error", "code"), [(BadInputError("x"), 11), (UnfitError("x"), 12), (ValueError("x"), 1)])
def test_errors_become_exit_codes(harness: Harness, error: Exception, code: int) -> None:
    def run(_: StageContext[Any]) -> StageOutput[Any]:
        raise error

    assert harness.run(run).exit_code == code


def test_sigterm_ends_with_143(harness: Harness) -> None:
    def run(context: StageContext[Any]) -> StageOutput[Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        assert context.stopping.wait(10)
        context.check_stop()
        raise AssertionError("check_stop returned after SIGTERM")

    assert harness.run(run).exit_code == 143


def test_progress_is_served_while_the_stage_runs(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[Any] = []
    serve = Telemetry.serve

    def remember(self: Any, port: int) -> Any:
        servers.append(serve(self, port))
        return servers[-1]

    monkeypatch.setattr(Telemetry, "serve", remember)

    def run(context: StageContext[Any]) -> StageOutput[Any]:
        context.telemetry.progress(3, 8)
        context.telemetry.metric(JudgeMetrics.reward, 0.25)
        base = f"http://127.0.0.1:{servers[0].port}"
        with urllib.request.urlopen(base + "/healthz") as answer:
            assert answer.read() == b"ok\n"
        with urllib.request.urlopen(base + "/metrics") as answer:
            text = answer.read().decode()
        assert "dynalign_stage_done 3.0" in text
        assert 'dynalign_stage_metric{name="reward"} 0.25' in text
        return StageOutput(files={})

    assert harness.run(run).exit_code == 0


def test_reading_the_inputs_counts_as_progress(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of a large model take minutes, which must not look like a stage that stands still."""
    readings: list[LiveMetrics] = []
    serve, check = Telemetry.serve, sha256_of

    def remember(self: Telemetry, port: int) -> TelemetryServer:
        server = serve(self, port)
        base = f"http://127.0.0.1:{server.port}/metrics"

        def look_and_check(path: Path) -> str:
            with urllib.request.urlopen(base) as answer:
                readings.append(parse_metrics(answer.read().decode()))
            return check(path)

        monkeypatch.setattr(manifest, "sha256_of", look_and_check)
        return server

    monkeypatch.setattr(manifest, "_READERS", 1)
    (harness.root / "model").mkdir()
    for name in ("a", "b"):
        (harness.root / "model" / name).write_text(name * 1000)
    files = tuple(manifest.describe_file(harness.root / "model", name) for name in ("a", "b"))
    found = manifest.Manifest(stage=Stage.FETCH, config_digest="x", files=files)
    manifest.write_manifest(harness.root / "model", found)
    monkeypatch.setattr(Telemetry, "serve", remember)
    config = GENERATE.model_copy(update={"inputs": {"model": manifest.reference_to("model", found)}})
    assert harness.run(writes("x"), config).exit_code == 0
    before, between = readings[:2]
    assert before != between, "two readings that differ are progress"
    assert between.metrics["verified_bytes"] == 1000


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "stage.json"),
        ('{"run": "r", "params": {"stage": "fetch"}}', "params.fetch.uri"),
        ('{"run": "r", "params": {"stage": "dance"}}', "params"),
        ('{"run": "r", "colour": 1, "params": {"stage": "fetch", "uri": "/m"}}', "colour"),
    ],
)
def test_a_bad_configuration_names_the_field(harness: Harness, text: str, named: str) -> None:
    (harness.root / "stage.json").write_text(text)
    result = harness.run_file()
    assert result.exit_code == 10
    assert result.error is not None
    assert named in result.error.message


def test_a_missing_configuration_and_a_wrong_shard(harness: Harness) -> None:
    assert harness.run_file().exit_code == 10
    result = harness.run(must_not_run, shard=1)
    assert (result.exit_code, result.error and "JOB_COMPLETION_INDEX" in result.error.message) == (10, True)


def test_every_stage_has_code() -> None:
    assert set(stage_life._DOORS) == set(Stage) - {Stage.ROLLOUT}, "a rollout runs the code of its stages"


def test_seeds_depend_on_the_salt_only(tmp_path: Path) -> None:
    config = StageConfig(run="r", params=FetchParams(uri="/m"))

    def seed(*salt: object, attempt: int = 1) -> int:
        context = StageContext[FetchParams](
            config=config.model_copy(update={"attempt": attempt}),
            params=FetchParams(uri="/m"),
            layout=RunLayout(tmp_path),
            folder=tmp_path,
            shard=0,
            inputs={},
            telemetry=Telemetry(),
            stopping=threading.Event(),
        )
        return context.seed(*salt)

    assert seed("a", 1) == seed("a", 1, attempt=5) != seed("a", 2)
    assert 0 <= seed("x") < 2**31


def test_a_metric_of_another_stage_is_left_out(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    def run(context: StageContext[Any]) -> StageOutput[Any]:
        return StageOutput(files={}, metrics={GenerateMetrics.tokens: 3.0, TrainMetrics.loss_tokens: 4.0})

    result = harness.run(run)
    assert "the stage generate reports loss_tokens, a metric of the stage train" in caplog.text
    assert [metric.name for metric in result.metrics if "tokens" in metric.name] == ["tokens"]
