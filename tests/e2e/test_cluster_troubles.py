"""What clusters do to a run, on a real one: everything ends in the condition, the reason and the remedy that we promise.

The stages are scripted, for these tests are about what surrounds them: kubelet, scheduler, Job controller, collector.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from lab.cluster import Cluster, Image, give_image
from support.cluster_runs import NO_GPU, OPERATOR, ClusterRun, Site, open_site, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

SPEC: dict[str, Any] = {
    "model": {"uri": "bundled://smollm2-135m-instruct"},
    "iterations": 1,
    "storage": {"size": "10Mi"},
    "policy": {"retries": 1, "pendingTimeout": "90s"},
    "rollout": "Separate",
    "stages": {str(stage): NO_GPU for stage in Stage},
}
"""A provisioner that starts a pod for each claim, kind's for example, takes a while for seven at once."""
FUSED: dict[str, Any] = {
    **SPEC,
    "rollout": "Fused",
    "stages": {str(stage): NO_GPU for stage in Stage if stage not in ROLLOUT_STAGES},
}
IMPATIENT: dict[str, Any] = {**SPEC, "policy": {"retries": 1, "pendingTimeout": "20s"}}
NO_ORPHAN_AFTER = 30.0


@pytest.fixture(scope="module")
def scripted_image(cluster: Cluster) -> Image:
    return give_image("scripted-stage")


@pytest.fixture(scope="module")
def site(cluster: Cluster, operator_image: Image, scripted_image: Image) -> Iterator[Site]:
    with open_site(cluster, operator_image, scripted_image) as opened:
        yield opened


@pytest.fixture(scope="module")
def stuck(
    site: Site, cluster: Cluster, operator_image: Image, scripted_image: Image
) -> Iterator[dict[str, ClusterRun]]:
    """Runs that cannot start, each for a reason of its own; they wait for their `pendingTimeout` side by side."""
    secret = {"uri": "hf://org/name", "tokenSecretRef": {"name": "absent", "key": "token"}}
    specs = {
        "nowhere": with_stage(Stage.FETCH, IMPATIENT, nodeSelector={"gpu": "none-such"}),
        "no-secret": {**IMPATIENT, "model": secret},
        "unbound": {**IMPATIENT, "storage": {"size": "10Mi", "storageClassName": "none-such"}},
    }
    runs = {name: site.apply(name, spec) for name, spec in specs.items()}
    with open_site(cluster, operator_image, Image("localhost/none-such", "test")) as imageless:
        yield {**runs, "no-image": imageless.apply("no-image", IMPATIENT)}


def with_stage(stage: Stage, spec: dict[str, Any] = SPEC, **settings: Any) -> dict[str, Any]:
    return {**spec, "stages": {**spec["stages"], str(stage): {**NO_GPU, **settings}}}


def until_stalled(run: ClusterRun, reason: str, *words: str) -> None:
    """Wait for the condition that tells the user what to do."""
    until(lambda: run.condition("Stalled").get("status") == "True", "Stalled", run.explain, 180)
    stalled = run.condition("Stalled")
    assert stalled["reason"] == reason, stalled
    assert [word for word in words if word.lower() not in stalled["message"].lower()] == [], stalled["message"]
    assert run.condition("Ready")["status"] == "False"


def a_schedulable_node(cluster: Cluster) -> str:
    """The value of the label by which pods are pinned to it."""
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    label: str = next(n["metadata"]["labels"]["kubernetes.io/hostname"] for n in nodes if not n["spec"].get("taints"))
    return label


def scale(site: Site, replicas: int) -> None:
    site.kubectl("scale", "deployment/dynalign", f"--replicas={replicas}")
    until(lambda: bool(site.pods(OPERATOR)) is (replicas > 0), "the operator", lambda: "")


@pytest.mark.parametrize("is_operator_down", [False, True])
def test_deleting_a_run_in_each_stage_leaves_nothing(site: Site, is_operator_down: bool) -> None:
    """All at once, each held in its own stage; the clean-up is the collector's and not the operator's."""
    runs = [
        site.apply(f"hold-{stage}-{int(is_operator_down)}", FUSED if stage is Stage.ROLLOUT else SPEC)
        for stage in Stage
    ]
    for run, stage in zip(runs, Stage, strict=True):
        until(partial(run.running, stage), f"a pod of {stage}", run.explain)
    if is_operator_down:
        scale(site, 0)
    site.kubectl("delete", "ar", "--all", "--wait=true", "--timeout=20s")
    kinds = "jobs,pods,configmaps,services,persistentvolumeclaims"
    left = lambda: site.kubectl("get", kinds, "-l", "dynalign.io/run", "-o", "name")  # noqa: E731
    until(lambda: not left(), "the end of the last orphan", left, NO_ORPHAN_AFTER)
    if is_operator_down:
        scale(site, 1)


def test_deleting_the_namespace_never_hangs(cluster: Cluster, operator_image: Image, scripted_image: Image) -> None:
    with open_site(cluster, operator_image, scripted_image) as site:
        run = site.apply("hold-train", SPEC)
        until(lambda: run.running(Stage.TRAIN), "a training pod", run.explain)
        began = time.monotonic()
        cluster.kubectl("delete", "namespace", site.namespace, "--timeout=120s")
        assert time.monotonic() - began < 120


def test_a_pod_that_somebody_deletes_costs_no_attempt(site: Site) -> None:
    run = site.apply("hold-judge-pod", SPEC)
    until(lambda: run.running(Stage.JUDGE), "a judging pod", run.explain)
    (first,) = run.running(Stage.JUDGE)
    site.kubectl("delete", "pod", first["metadata"]["name"], "--wait=false")
    until(
        lambda: [p for p in run.running(Stage.JUDGE) if p["metadata"]["uid"] != first["metadata"]["uid"]],
        "another pod",
        run.explain,
    )
    judge = next(s for s in run.status["iterations"][0]["stages"] if s["stage"] == "judge")
    assert judge.get("failures", 0) == 0
    site.kubectl("delete", "ar", run.name)


def test_a_drained_node_costs_no_attempt(site: Site) -> None:
    """Pinned to one node, for on a cluster of several the pod would simply move."""
    pinned = {"kubernetes.io/hostname": a_schedulable_node(site.cluster)}
    run = site.apply("hold-train-drain", with_stage(Stage.TRAIN, nodeSelector=pinned))
    until(lambda: run.running(Stage.TRAIN), "a training pod", run.explain)
    (pod,) = run.running(Stage.TRAIN)
    node = pod["spec"]["nodeName"]
    selector = f"--pod-selector=dynalign.io/run={run.name}"
    try:
        site.cluster.kubectl("drain", node, selector, "--delete-emptydir-data", "--timeout=120s", "--force")
        until(
            lambda: "unschedulable" in run.condition("Progressing").get("message", "").lower(),
            "the scheduler's word",
            run.explain,
            60,
        )
    finally:
        site.cluster.kubectl("uncordon", node)
    until(lambda: run.running(Stage.TRAIN), "another training pod", run.explain)
    train = next(s for s in run.status["iterations"][0]["stages"] if s["stage"] == "train")
    assert train.get("failures", 0) == 0
    site.kubectl("delete", "ar", run.name)


def test_a_stage_without_enough_memory_says_which_limit_to_raise(site: Site) -> None:
    limits = {"resources": {"limits": {"nvidia.com/gpu": "0", "memory": "64Mi"}}}
    run = site.apply("oom-judge", with_stage(Stage.JUDGE, **limits))
    until_stalled(run, "RetriesExhausted", "OOMKilled", "spec.stages.judge.resources.limits.memory")
    judged = [job for job in run.jobs() if job["metadata"]["labels"]["dynalign.io/stage"] == "judge"]
    assert len(judged) == 1 + SPEC["policy"]["retries"]


def test_a_pod_that_fits_nowhere(stuck: dict[str, ClusterRun]) -> None:
    run = stuck["nowhere"]
    until_stalled(run, "PendingTimeout", "spec.policy.pendingTimeout", "Unschedulable", "nodeSelector")
    assert run.pods() == []


def test_a_secret_that_is_missing(stuck: dict[str, ClusterRun]) -> None:
    until_stalled(stuck["no-secret"], "PendingTimeout", 'secret "absent" not found', "create")


def test_a_volume_that_never_binds(stuck: dict[str, ClusterRun]) -> None:
    until_stalled(stuck["unbound"], "PendingTimeout", "unbound", "PersistentVolumeClaim", "spec.storage")


def test_an_image_that_cannot_be_pulled(stuck: dict[str, ClusterRun]) -> None:
    until_stalled(stuck["no-image"], "PendingTimeout", "localhost/none-such", "pull")


def test_a_run_that_the_quota_leaves_no_pod(cluster: Cluster, operator_image: Image, scripted_image: Image) -> None:
    with open_site(cluster, operator_image, scripted_image) as site:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        site.kubectl("create", "-f-", manifest={"apiVersion": "v1", "kind": "ResourceQuota", **quota})
        until(
            lambda: "used" in json.loads(site.kubectl("get", "resourcequota", "none", "-o", "json")).get("status", {}),
            "the quota",
            lambda: "",
        )
        run = site.apply("refused", SPEC)
        until_stalled(run, "Refused", "quota")
        site.kubectl("delete", "resourcequota", "none")
        run.until_completed()


def test_a_stage_outlives_four_operators_that_cannot_read_its_progress(
    site: Site, cluster: Cluster, operator_image: Image, scripted_image: Image
) -> None:
    """One setting a namespace, side by side. With `PodIP` its pods are out of reach: this stage serves no /metrics."""
    with open_site(cluster, operator_image, scripted_image) as other, ThreadPoolExecutor() as pool:
        list(pool.map(outlives_four_operators, (site, other), ("Off", "PodIP")))


def outlives_four_operators(site: Site, progress: str) -> None:
    """The stage is older than `stallTimeout` at each restart, and each operator watches it for longer than that."""
    limit = 5.0
    site.kubectl("set", "env", "deployment/dynalign", f"DYNALIGN_PROGRESS={progress}")
    site.kubectl("rollout", "status", "deployment/dynalign", "--timeout=180s")
    policy = {**SPEC["policy"], "retries": 0, "stallTimeout": f"{limit:.0f}s"}
    run = site.apply(f"hold-train-{progress.lower()}", {**SPEC, "policy": policy})
    run.until(lambda: run.running(Stage.TRAIN), "a training pod")
    (pod,) = run.running(Stage.TRAIN)
    for restart in range(4):
        site.kubectl("rollout", "restart", "deployment/dynalign")
        site.kubectl("rollout", "status", "deployment/dynalign", "--timeout=180s")
        seen = time.monotonic()
        run.patch(iterations=restart + 2)  # something to reconcile, for an operator that knows the stage to be old
        run.until(lambda: time.monotonic() - seen > 2 * limit, "a look longer than the limit")  # noqa: B023 - waits here
        run.until(lambda: run.status["observedGeneration"] > restart + 1, "a reconcile")  # noqa: B023 - waits here
    assert [p["metadata"]["uid"] for p in run.running(Stage.TRAIN)] == [pod["metadata"]["uid"]]
    train = next(s for s in run.status["iterations"][0]["stages"] if s["stage"] == "train")
    assert (train["attempt"], train.get("failures", 0)) == (1, 0)
    site.kubectl("delete", "ar", run.name)
