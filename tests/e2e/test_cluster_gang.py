"""The loop on a real cluster with sharded sampling and a gang of two training pods, twice.

One run is suspended in the middle of generate and of train, and gets a second iteration after its success, in which a
firewall keeps the training pods apart for a while. Under the other the operator is killed whenever something has
happened. Both must end with the very same artifacts.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dynalign_contract.layout import REPORT_FILE, part_name, shard_folder, stage_folder
from dynalign_contract.pod_paths import RENDEZVOUS_PORT
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_trainer.train.job import REPORTS_FILE
from lab.cluster import Cluster, Image, LabError
from lab.testbed import load_testbed
from support.cluster_runs import (
    OPERATOR,
    REWARDS_URL,
    TINY,
    ClusterRun,
    Site,
    open_site,
    place_reward_server,
    place_testbed,
    violations,
)
from support.firewall import dropped_packets
from support.prometheus import HOUR, Prometheus, documented_series, start_prometheus

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

LOG = logging.getLogger(__name__)

NAME = "gang"
TRIES = 3
MFU = "dynalign_run_mfu"
SPEC = {
    **TINY,
    "prompts": {**TINY["prompts"], "perIteration": 12, "refresh": "Once"},
    "generation": {"candidates": 8, "maxTokens": 96, "promptsPerPart": 1, "shards": 2},
    "evaluation": {
        **TINY["evaluation"],
        "capability": {"tasks": ["dynalign_choices"], "limit": 8},
        "ratings": "BradleyTerry",
    },
    "judging": {**TINY["judging"], "judges": [{"name": "self", "judge": "Live"}, {"name": "base", "judge": "Base"}]},
    "rewards": [
        {"name": "brief", "type": "Length", "max": 48},
        {"name": "variety", "type": "Http", "endpoint": {"url": REWARDS_URL}, "weight": 0.5},
    ],
    "training": {**TINY["training"], "tokensPerMicroBatch": 64, "nodes": 2, "zeroStage": 2},
}
WITH_TWO_PODS = (Stage.GENERATE, Stage.JUDGE, Stage.TRAIN, Stage.EVALUATE)
ANSWER = f"""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("/volume/{NAME}/export")
tokenizer = AutoTokenizer.from_pretrained("/volume/{NAME}/export")
ids = tokenizer.apply_chat_template([{{"role": "user", "content": "Explain."}}], add_generation_prompt=True,
                                    return_tensors="pt", return_dict=True)
print(model.generate(**ids, max_new_tokens=8).shape[1] - ids["input_ids"].shape[1])
"""


@dataclass
class Seen:
    """What was seen of a run while it went on."""

    run: ClusterRun
    edges: set[str] = field(default_factory=set)
    """What has happened to its Jobs, `NAME made`, `NAME begun`, `NAME ended`."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """How far its status said it was: iterations, and stages that have succeeded."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every pod as it was seen last, by name."""

    def look(self) -> set[str]:
        """Look once; returns what has happened since."""
        before = set(self.edges)
        self.edges |= edges(self.run)
        self.pods.update({pod["metadata"]["name"]: pod for pod in self.run.pods()})
        self.places.append((len(self.run.status.get("iterations", ())), len(succeeded(self.run))))
        return self.edges - before


@dataclass(frozen=True)
class Interrupted:
    """The run that its user suspended, and the series that Prometheus has of it."""

    run: ClusterRun
    parted: str
    """What it said while a firewall kept its training pods apart."""
    silent: list[str]
    """Documented series that the operator's pod never served."""


@pytest.fixture(scope="module")
def other_site(cluster: Cluster, operator_image: Image, trainer_image: Image) -> Iterator[Site]:
    with open_site(cluster, operator_image, trainer_image) as opened:
        yield opened


@pytest.fixture(scope="module")
def interrupted(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """One iteration, suspended in the middle of generate and of train, and then another one."""
    place_testbed(site, load_testbed())
    place_reward_server(site)
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        site.forward(folder, "svc/dynalign", 9090) as port,
        start_prometheus(folder, {"dynalign": [f"127.0.0.1:{port}"]}) as prometheus,
    ):
        run = suspended_twice(site)
        run.until_completed()
        run.patch(iterations=2)
        parted = kept_apart(run)
        run.until(lambda: len(run.status["iterations"]) == 2 and run.is_completed, "the second iteration")
        prometheus.await_samples("dynalign_run_progress_ratio == 1")
        return Interrupted(run, parted, silent(prometheus))


@pytest.fixture(scope="module")
def orphaned(other_site: Site) -> Seen:
    """Two iterations, while the operator is killed whenever a Job has been made, has begun or has ended."""
    place_testbed(other_site, load_testbed())
    place_reward_server(other_site)
    seen = Seen(other_site.apply(NAME, SPEC))

    def step() -> bool:
        if seen.look():
            other_site.kubectl("delete", "pod", "-l", OPERATOR, "--grace-period=0", "--force", "--wait=false")
        return seen.run.is_completed

    seen.run.until(step, "completion", 2400)
    return seen


class MissedError(Exception):
    """A stage was done before it could be suspended: the machine was slow to look, the stage was not."""


def suspended_twice(site: Site) -> ClusterRun:
    """A run that was suspended in the middle of generate and of train; one whose middle was missed begins anew."""
    rollouts = f"{shard_folder(stage_folder(Stage.GENERATE, 0), 0, 2)}/{part_name(0)}"
    reports = f"iterations/000/checkpoints/{REPORTS_FILE}"
    for _ in range(TRIES):
        run = site.apply(NAME, {**SPEC, "iterations": 1})
        try:
            suspend_and_resume(run, Stage.GENERATE, rollouts)
            suspend_and_resume(run, Stage.TRAIN, reports)
        except MissedError:
            site.kubectl("delete", "ar", NAME)
            site.kubectl("wait", "--for=delete", f"pvc/{NAME}", "--timeout=180s")
            continue
        return run
    raise AssertionError(f"in {TRIES} runs the middle of a stage was missed")


def await_file(run: ClusterRun, stage: Stage, path: str) -> bool:
    """Wait in the stage's first pod for a file that is not empty; False when there is no such pod, or no file."""
    for pod in run.running(stage)[:1]:
        script = f"for _ in $(seq 600); do test -s /volume/{NAME}/{path} && exit; sleep 0.1; done; exit 1"
        try:
            run.site.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script)
        except LabError:
            continue
        return True
    return False


def suspend_and_resume(run: ClusterRun, stage: Stage, path: str) -> None:
    """Suspend the run once the stage has written a file, and resume it. Raises MissedError."""

    def reached() -> bool:
        if stage in succeeded(run):
            raise MissedError(stage)
        return await_file(run, stage, path)

    run.until(reached, f"the middle of {stage}")
    run.patch(suspend=True)
    run.until(lambda: run.status["phase"] == "Suspended", "suspension")
    run.until(lambda: not run.running(stage), f"the end of {stage}'s pods", 180)
    assert run.condition("Progressing")["reason"] == "Suspended"
    if stage in succeeded(run):
        raise MissedError(stage)
    run.patch(suspend=False)


def kept_apart(run: ClusterRun) -> str:
    """Drop what the second training pod sends to the first, before they meet, until the run says so."""

    def gang() -> list[dict[str, Any]]:
        pods = run.running(Stage.TRAIN)
        return sorted(pods, key=lambda pod: pod["metadata"]["name"]) if len(pods) == 2 else []

    run.until(gang, "two training pods")
    first, second = gang()
    began = time.monotonic()
    with dropped_packets(second, first):
        run.until(lambda: "wait for node 0" in run.condition("Progressing")["message"], "a word on it", 300)
        message: str = run.condition("Progressing")["message"]
    LOG.info("a firewall between two training pods was named after %.0f s: %s", time.monotonic() - began, message)
    return message


def succeeded(run: ClusterRun) -> list[str]:
    """The stages that are done, in order, of all iterations."""
    iterations = run.status.get("iterations", ())
    return [s["stage"] for i in iterations for s in i["stages"] if s["phase"] == "Succeeded"]


def edges(run: ClusterRun) -> set[str]:
    """What has happened to the run's Jobs so far."""
    found = set()
    for job in run.jobs():
        name, status = job["metadata"]["name"], job.get("status", {})
        found.add(f"{name} made")
        if status.get("ready"):
            found.add(f"{name} begun")
        if any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", ())):
            found |= {f"{name} begun", f"{name} ended"}
    return found


def silent(prometheus: Prometheus) -> list[str]:
    """The documented series that Prometheus has never seen."""
    return [name for name in documented_series() if not prometheus.query(f"last_over_time(({name}){HOUR})")]


def test_a_suspended_stage_goes_on_from_what_it_had(interrupted: Interrupted) -> None:
    run = interrupted.run
    attempts = {job["metadata"]["name"] for job in run.jobs()}
    assert {f"{NAME}-i000-generate-a2", f"{NAME}-i000-train-a2"} <= attempts
    pods = [p for p in run.pods(Stage.TRAIN) if p["metadata"]["labels"]["dynalign.io/attempt"] == "2"]
    assert "going on from" in "".join(run.site.kubectl("logs", pod["metadata"]["name"]) for pod in pods)


def test_a_gang_behind_a_firewall_says_who_waits_for_which_address(interrupted: Interrupted) -> None:
    run, parted = interrupted.run, interrupted.parted
    assert f"wait for node 0 at {NAME}-i001-train-a1-0.train-{NAME}:{RENDEZVOUS_PORT}" in parted
    assert "node 1 since" in parted
    assert "firewalls that drop forwarded packets" in parted
    train = next(s for s in run.status["iterations"][1]["stages"] if s["stage"] == "train")
    assert (train["attempt"], train.get("failures", 0)) == (1, 0), "it went on by itself"


def test_prometheus_has_every_documented_metric_of_it(interrupted: Interrupted) -> None:
    assert interrupted.silent == [MFU], "the only one that needs a GPU"


def test_the_run_completes_and_kubectl_shows_it(orphaned: Seen) -> None:
    run = orphaned.run
    run.site.kubectl("wait", f"ar/{NAME}", "--for=condition=Completed", "--timeout=1s")
    status = run.status
    assert status["phase"] == "Succeeded"
    assert [i["index"] for i in status["iterations"]] == [0, 1]
    header, row = run.site.kubectl("get", "ar").splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "REWARD", "WINRATE", "AGE"]
    assert row.split()[:2] == [NAME, "Succeeded"]
    assert float(row.split()[-3]) == pytest.approx(status["iterations"][-1]["reward"], abs=5e-4)


def test_the_operator_was_killed_at_every_edge_and_the_status_never_went_back(orphaned: Seen) -> None:
    names = [job["metadata"]["name"] for job in orphaned.run.jobs()]
    all_edges = {f"{name} {what}" for name in names for what in ("made", "begun", "ended")}
    last = {f"{NAME}-export-a1 ended"}
    assert all_edges - orphaned.edges <= last, "the last edge is the run's own end, which may come first"
    assert orphaned.places == sorted(orphaned.places)


def test_no_job_was_made_twice(orphaned: Seen) -> None:
    jobs = orphaned.run.jobs()
    assert len(jobs) == 2 + 2 * len(ITERATION_STAGES) - 1, "the prompts are written once"
    assert {job["metadata"]["labels"]["dynalign.io/attempt"] for job in jobs} == {"1"}
    made = [
        e["involvedObject"]["name"]
        for e in orphaned.run.site.events()
        if e["reason"] == "SuccessfulCreate" and e["involvedObject"]["kind"] == "Job"
        if not e["involvedObject"]["name"].startswith(f"{NAME}-{Stage.REPORT}-")
    ]
    pods = {job["metadata"]["name"]: job["spec"]["completions"] for job in jobs}
    assert {name: made.count(name) for name in made} == pods


def test_the_report_of_the_whole_run_was_written(orphaned: Seen) -> None:
    run = orphaned.run
    run.until_reported()
    assert run.status["report"]["path"] == REPORT_FILE
    page = f"print(len(open('/volume/{NAME}/{REPORT_FILE}').read()))"
    assert int(run.site.run_pod(f"{NAME}-look-at-report", page, NAME)) > 100_000


def test_jobs_have_the_pods_that_were_asked_for(orphaned: Seen) -> None:
    pods = {job["metadata"]["name"]: job["spec"]["completions"] for job in orphaned.run.jobs()}
    expected = {f"{NAME}-i{i:03d}-{stage}-a1" for i in range(2) for stage in WITH_TWO_PODS}
    assert {name for name, count in pods.items() if count == 2} == expected


def test_both_pods_of_the_gang_trained(orphaned: Seen) -> None:
    run = orphaned.run
    for iteration in run.status["iterations"]:
        index = str(iteration["index"])
        assert len(of_training(orphaned.pods.values(), index)) == 2
        # The Job succeeds with the first pod; Kubernetes removes the second one if it has not ended by then.
        pods = of_training(run.pods(), index)
        ends = [pod["status"]["containerStatuses"][0]["state"].get("terminated") for pod in pods]
        results = [StageResult.decode(end["message"]) for end in ends if end is not None]
        assert {result.outcome for result in results} == {Outcome.SUCCEEDED}
        assert [result.artifact is not None for result in results].count(True) == 1
        said = "".join(run.site.kubectl("logs", pod["metadata"]["name"]) for pod in pods)
        assert "DeepSpeed ZeRO-2: nodes 2, processes a node 1" in said
        (train,) = (stage for stage in iteration["stages"] if stage["stage"] == "train")
        trained = {metric["name"]: metric.get("value") for metric in train["metrics"]}
        assert trained["trained_steps"] >= 1
        assert trained["slowest_link"] > 0, "both nodes have measured their link"
        assert "nodes 0 and 1 exchange" in said


def of_training(pods: Iterable[dict[str, Any]], iteration: str) -> list[dict[str, Any]]:
    """The training pods of an iteration."""
    wanted = {"dynalign.io/stage": Stage.TRAIN, "dynalign.io/iteration": iteration}
    return [pod for pod in pods if wanted.items() <= pod["metadata"]["labels"].items()]


def test_both_shards_and_the_evaluation_reached_the_server_of_rewards(orphaned: Seen) -> None:
    for iteration in orphaned.run.status["iterations"]:
        metrics = {m["name"]: m.get("value") for stage in iteration["stages"] for m in stage["metrics"]}
        assert 0 < metrics["verifier_reward/variety"] <= 1
        assert metrics["verifier_failed_share/variety"] < 0.5  # an answer without a word is undecided
        assert 0 < metrics["verifier_value/variety"] <= 1


def test_no_pod_could_write_its_root_or_had_a_token(orphaned: Seen) -> None:
    assert len(orphaned.pods) == sum(job["spec"]["completions"] for job in orphaned.run.jobs())
    assert violations(orphaned.pods.values()) == []
    site = orphaned.run.site
    namespace = json.loads(site.cluster.kubectl("get", "namespace", site.namespace, "-o", "json"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_exported_model_lies_on_the_volume_and_answers(orphaned: Seen) -> None:
    assert int(orphaned.run.site.run_pod("answer", ANSWER, NAME).split()[-1]) > 0


def test_whatever_interrupts_a_run_the_artifacts_are_the_same(interrupted: Interrupted, orphaned: Seen) -> None:
    ours, theirs = interrupted.run.artifacts(), orphaned.run.artifacts()
    assert ours.keys() == theirs.keys()
    assert [folder for folder in ours if ours[folder] != theirs[folder]] == []
