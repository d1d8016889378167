"""The examples for GPUs: each is validated, rendered and estimated, and its pods ask for what its comments say."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dynalign_contract.stages import ITERATION_STAGES, Stage, stages_of_job
from dynalign_operator.cli.main import app
from dynalign_operator.cli.verdict import Verdict

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = frozenset({"demo.yaml", "kubernetes-cpu.yaml", "publish.yaml", "smollm2.yaml", "tutorial.yaml"})
"""Examples of the bundled model, which need no GPU."""
ON_GPUS = sorted(path.name for path in EXAMPLES.glob("*.yaml") if path.name not in SMALL | {"other-agents.yaml"})
GPUS = {
    "gpt-oss-20b.yaml": {Stage.PROMPTS: 1, Stage.GENERATE: 8, Stage.JUDGE: 8, Stage.TRAIN: 8, Stage.EVALUATE: 8},
    "llama-70b.yaml": {Stage.PROMPTS: 4, Stage.GENERATE: 16, Stage.JUDGE: 16, Stage.TRAIN: 16, Stage.EVALUATE: 16},
    "qwen3-14b-rdma.yaml": {Stage.PROMPTS: 1, Stage.GENERATE: 16, Stage.JUDGE: 16, Stage.TRAIN: 16, Stage.EVALUATE: 16},
}
ONE_NODE = {Stage.PROMPTS: 1, Stage.GENERATE: 8, Stage.JUDGE: 8, Stage.TRAIN: 8, Stage.EVALUATE: 8}


def jobs_of(name: str) -> dict[str, dict[str, Any]]:
    """Stage -> Job of the first iteration, as `dynalign render` prints them."""
    said = CliRunner().invoke(app, ["render", str(EXAMPLES / name), "--all"])
    assert said.exit_code == 0, said.output
    jobs = [found for found in yaml.safe_load_all(said.stdout) if found["kind"] == "Job"]
    by_stage: dict[str, dict[str, Any]] = {}
    for job in jobs:
        by_stage.setdefault(job["metadata"]["labels"]["dynalign.io/stage"], job)
    return by_stage


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def limits_of(job: dict[str, Any]) -> dict[str, str]:
    limits: dict[str, str] = pod_of(job)["containers"][0]["resources"].get("limits", {})
    return limits


@pytest.mark.parametrize("name", ON_GPUS)
def test_it_is_valid_it_fits_and_its_jobs_hold_the_gpus_of_the_estimate(name: str) -> None:
    said = CliRunner().invoke(app, ["validate", "--estimate", "-o", "json", str(EXAMPLES / name)])
    (verdict,) = map(Verdict.model_validate, json.loads(said.stdout))
    assert (verdict.valid, verdict.notes) == (True, ())
    assert verdict.estimate is not None
    assert verdict.estimate.problems == ()
    assert verdict.estimate.gpu_hours > 0
    estimated = {entry.stage: entry.gpus for entry in verdict.estimate.stages if entry.stage in ITERATION_STAGES}
    rendered = {
        work: job["spec"]["completions"] * int(limits_of(job).get("nvidia.com/gpu", "0"))
        for stage, job in sorted(jobs_of(name).items(), key=lambda entry: entry[0] == Stage.ROLLOUT)
        for work in stages_of_job(Stage(stage))
        if work in ITERATION_STAGES
    }
    expected = GPUS.get(name, ONE_NODE)
    if Stage.ROLLOUT in jobs_of(name):
        expected = {**expected, **dict.fromkeys((Stage.PROMPTS, Stage.EVALUATE), expected[Stage.GENERATE])}
    assert estimated == expected
    assert rendered == estimated


def test_every_kind_of_site_has_an_example() -> None:
    """Issue 8: one node, spot nodes, a mixture of experts, tensor parallel with two training nodes, a queue, RDMA, OpenShift."""
    assert set(ON_GPUS) >= {
        "gpt-oss-20b.yaml",
        "llama-70b.yaml",
        "qwen3-14b-rdma.yaml",
        "qwen3-8b-kueue.yaml",
        "qwen3-8b-openshift.yaml",
        "qwen3-8b-spot.yaml",
        "qwen3-8b.yaml",
    }


def test_rdma_is_asked_for_by_training_alone() -> None:
    jobs = jobs_of("qwen3-14b-rdma.yaml")
    assert [stage for stage, job in jobs.items() if "rdma/hca" in limits_of(job)] == ["train"]
    env = {entry["name"]: entry.get("value") for entry in pod_of(jobs["train"])["containers"][0]["env"]}
    assert (env["NCCL_IB_HCA"], env["NCCL_SOCKET_IFNAME"]) == ("mlx5", "eth0")
    assert jobs["train"]["spec"]["completions"] == 2


def test_a_queue_gets_every_job_and_the_budget_is_above_the_estimate() -> None:
    jobs = jobs_of("qwen3-8b-kueue.yaml")
    assert {job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for job in jobs.values()} == {"gpus"}
    spec = yaml.safe_load((EXAMPLES / "qwen3-8b-kueue.yaml").read_text())["spec"]
    said = CliRunner().invoke(app, ["estimate", str(EXAMPLES / "qwen3-8b-kueue.yaml"), "-o", "json"])
    assert spec["policy"]["budget"]["gpuHours"] > 2 * json.loads(said.stdout)["gpuHours"]


def test_on_openshift_stages_go_to_gpu_nodes_and_the_others_anywhere() -> None:
    jobs = jobs_of("qwen3-8b-openshift.yaml")
    there = {stage for stage, job in jobs.items() if "nvidia.com/gpu.present" in pod_of(job).get("nodeSelector", {})}
    assert {work for stage in there for work in stages_of_job(Stage(stage))} == set(ITERATION_STAGES)
