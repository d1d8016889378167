"""From a Job's manifest to a command on this machine."""

import sys
from pathlib import Path

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.errors import UnsupportedJobError
from dynalign_operator.clusters.local.commands import (
    Command,
    Placement,
    build_command,
    expand_references,
    final_exit_codes,
    grace_seconds,
    map_paths,
    restarts_per_index,
)
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.clusters.stage_metrics import LiveMetrics, parse_metrics
from dynalign_operator.planning.bundles import build_bundle
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.plan import JobBundle
from support.builders import RunBuilder, a_run
from support.simulation import SETTINGS, Simulation

PLACEMENT = Placement(Workdir(Path("/runs/mine")), Path("/home/me/cache"), {"HF_TOKEN": "s3cret", "PATH": "/bin"})


def bundle_of(run: RunBuilder, stage: Stage, iteration: int | None = None) -> JobBundle:
    simulation = Simulation(run.build()).until(stage, iteration)
    return simulation.created[-1]


def command_of(run: RunBuilder, stage: Stage, iteration: int | None = None, index: int = 0) -> Command:
    return build_command(bundle_of(run, stage, iteration).job, index, 4321, PLACEMENT)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("--port=$(PORT)", "--port=9"),
        ("$$(PORT)", "$(PORT)"),
        ("$(UNKNOWN) $PORT ${PORT}", "$(UNKNOWN) $PORT ${PORT}"),
        ("$(PORT)$(PORT)", "99"),
    ],
)
def test_references_are_expanded_as_the_kubelet_does(text: str, expanded: str) -> None:
    assert expand_references(text, {"PORT": "9"}) == expanded


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("--root=/volume/r", "--root=/here"),
        ("/volume/r/model", "/here/model"),
        ("/volume/run", "/volume/run"),
        ("/other/volume/r", "/other/volume/r"),
        ("/volume/r:/cache/x", "/here:/c/x"),
    ],
)
def test_paths_are_mapped_where_they_begin(text: str, mapped: str) -> None:
    assert map_paths(text, {"/volume/r": Path("/here"), "/cache": Path("/c")}) == mapped


def test_the_command_of_a_stage() -> None:
    command = command_of(a_run(), Stage.TRAIN, 0)
    assert command.arguments == (
        sys.executable,
        "-m",
        "dynalign_trainer.main",
        "--config=/runs/mine/.jobs/r-i000-train-a1/stage.json",
        "--root=/runs/mine",
        "--result=/runs/mine/.jobs/r-i000-train-a1/result-0.json",
        "--port=4321",
    )
    assert command.environment["HF_HOME"] == "/home/me/cache/huggingface"
    assert command.environment["HF_HUB_OFFLINE"] == "1"
    assert command.environment["PATH"] == "/bin"
    assert "JOB_COMPLETION_INDEX" not in command.environment


@pytest.mark.parametrize(("stage", "iteration", "sees"), [(Stage.FETCH, None, True), (Stage.PROMPTS, 0, False)])
def test_the_token_reaches_only_the_stage_that_asks_for_it(stage: Stage, iteration: int | None, sees: bool) -> None:
    run = a_run().with_spec(model={"tokenSecretRef": {"name": "hub", "key": "token"}})
    assert ("HF_TOKEN" in command_of(run, stage, iteration).environment) is sees


def test_a_shard_knows_its_index() -> None:
    command = command_of(a_run().with_shards(3), Stage.JUDGE, 0, index=2)
    assert command.environment["JOB_COMPLETION_INDEX"] == "2"
    assert "--result=/runs/mine/.jobs/r-i000-judge-a1/result-2.json" in command.arguments


def test_several_nodes_are_refused() -> None:
    with pytest.raises(UnsupportedJobError, match=r"spec\.training\.nodes to 1"):
        command_of(a_run().with_spec(training={"nodes": 2}), Stage.TRAIN, 0)


def test_what_the_manifest_says_of_ends() -> None:
    observed = Observed(a_run().with_shards(2).with_policy(retries=5).build())
    fetch = build_bundle(observed, observed.run.status, Step(Stage.FETCH), 1, SETTINGS).job
    judge = bundle_of(a_run().with_shards(2).with_policy(retries=5), Stage.JUDGE, 0).job
    assert (restarts_per_index(fetch), restarts_per_index(judge)) == (0, 5)
    assert final_exit_codes(judge) == {10, 11, 12, 13}
    assert (grace_seconds(fetch), grace_seconds({"spec": {"template": {"spec": {}}}})) == (30, 30)
    assert grace_seconds(bundle_of(a_run(), Stage.TRAIN, 0).job) == 120


def test_metrics_are_parsed() -> None:
    text = """# TYPE dynalign_stage_done gauge
dynalign_stage_done 3.0
# TYPE dynalign_stage_total gauge
dynalign_stage_total 12.0
# TYPE dynalign_stage_tokens_per_second gauge
dynalign_stage_tokens_per_second 350.5
# TYPE dynalign_stage_metric gauge
dynalign_stage_metric{name="reward"} 0.5
"""
    reading = parse_metrics(text)
    assert reading == LiveMetrics(done=3, total=12, tokens_per_second=350.5, metrics={"reward": 0.5})
    assert reading.progress.fraction == 0.25


def test_what_describes_a_pod_is_not_told_to_a_process_of_this_machine() -> None:
    pod = {
        entry["name"]
        for entry in bundle_of(a_run(), Stage.GENERATE, 0).job["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert {"HOME", "DYNALIGN_COMPILED"} <= pod
    assert not {"HOME", "LOGNAME", "DYNALIGN_COMPILED", "NVIDIA_VISIBLE_DEVICES"} & set(
        command_of(a_run(), Stage.GENERATE, 0).environment
    )


def test_a_run_s_own_variables_reach_the_process() -> None:
    run = a_run().with_spec(stages={"train": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:1"}]}})
    command = command_of(run, Stage.TRAIN, 0)
    assert command.environment["HTTPS_PROXY"] == command.environment["https_proxy"] == "http://proxy:1"
