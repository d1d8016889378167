"""The loop on a real cluster with sharded sampling and a gang of two training pods."""

import json

import pytest

from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import ITERATION_STAGES, Stage
from support.cluster_runs import TINY, ClusterRun, Site, place_testbed, violations
from support.testbed import make_testbed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

ANSWER = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("/volume/gang/export")
tokenizer = AutoTokenizer.from_pretrained("/volume/gang/export")
ids = tokenizer.apply_chat_template([{"role": "user", "content": "Explain."}], add_generation_prompt=True,
                                    return_tensors="pt", return_dict=True)
print(model.generate(**ids, max_new_tokens=8).shape[1] - ids["input_ids"].shape[1])
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, object]]:
    """Every pod of the run as it was seen last, by name."""
    return {}


@pytest.fixture(scope="module")
def run(site: Site, seen: dict[str, dict[str, object]]) -> ClusterRun:
    """Two iterations, two shards, two training pods with ZeRO-2, to their end."""
    place_testbed(site, make_testbed())
    spec = {
        **TINY,
        "generation": {**TINY["generation"], "shards": 2},
        "training": {**TINY["training"], "nodes": 2, "zeroStage": 2},
    }
    run = site.apply("gang", spec)

    def completed() -> bool:
        seen.update({pod["metadata"]["name"]: pod for pod in run.pods()})
        return run.is_completed

    run.until(completed, "completion", 2400)
    return run


def test_the_run_completes_and_kubectl_shows_it(run: ClusterRun) -> None:
    run.site.kubectl("wait", "ar/gang", "--for=condition=Completed", "--timeout=1s")
    status = run.status
    assert status["phase"] == "Succeeded"
    assert [i["index"] for i in status["iterations"]] == [0, 1]
    header, row = run.site.kubectl("get", "ar").splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "REWARD", "WINRATE", "AGE"]
    assert row.split()[:2] == ["gang", "Succeeded"]
    assert f"{status['iterations'][-1]['reward']}"[:5] in row


def test_jobs_ran_once_with_the_pods_that_were_asked_for(run: ClusterRun) -> None:
    jobs = {job["metadata"]["name"]: job for job in run.jobs()}
    assert len(jobs) == 2 + 2 * len(ITERATION_STAGES)
    pods = {name: job["spec"]["completions"] for name, job in jobs.items()}
    assert {n for n, count in pods.items() if count == 2} == {
        f"gang-i{i:03d}-{stage}-a1" for i in range(2) for stage in (Stage.GENERATE, Stage.JUDGE, Stage.TRAIN)
    }


def test_both_pods_of_the_gang_trained(run: ClusterRun) -> None:
    for iteration in (0, 1):
        pods = [p for p in run.pods(Stage.TRAIN) if p["metadata"]["labels"]["dynalign.io/iteration"] == str(iteration)]
        states = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods]
        results = [StageResult.decode(state["message"]) for state in states]
        assert [result.outcome for result in results] == [Outcome.SUCCEEDED] * 2
        assert sorted(result.artifact is not None for result in results) == [False, True]
        said = "".join(run.site.kubectl("logs", pod["metadata"]["name"]) for pod in pods)
        assert "DeepSpeed ZeRO-2: nodes 2, processes a node 1" in said
        trained = {
            m["name"]: m["value"]
            for s in run.status["iterations"][iteration]["stages"]
            if s["stage"] == "train"
            for m in s["metrics"]
        }
        assert trained["trained_steps"] >= 1


def test_no_pod_could_write_its_root_or_had_a_token(run: ClusterRun, seen: dict[str, dict[str, object]]) -> None:
    assert len(seen) == 2 + 2 * (len(ITERATION_STAGES) + 3)
    assert violations(seen.values()) == []
    labels = json.loads(run.site.cluster.kubectl("get", "namespace", run.site.namespace, "-o", "json"))["metadata"][
        "labels"
    ]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_exported_model_lies_on_the_volume_and_answers(run: ClusterRun) -> None:
    assert int(run.site.run_pod("answer", ANSWER, "gang").split()[-1]) > 0
