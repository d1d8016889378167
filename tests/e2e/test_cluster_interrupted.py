"""Real stages on a real cluster, suspended in their middle, continued, and run by an operator that is killed at every edge."""

import json
from collections.abc import Callable, Iterator

import pytest

from benchmarks.cluster import BenchError, Cluster, Image
from dynalign_contract.layout import part_name, stage_folder
from dynalign_contract.stages import Stage
from dynalign_trainer.grpo.job import REPORTS_FILE
from support.cluster_runs import OPERATOR, TINY, ClusterRun, Site, open_site, place_testbed
from support.testbed import make_testbed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

SPEC = {
    **TINY,
    "prompts": {**TINY["prompts"], "perIteration": 12, "refresh": "Once"},
    "generation": {"candidates": 8, "maxTokens": 96, "promptsPerPart": 1},
    "training": {**TINY["training"], "microBatch": 1},
}
NAME = "tiny"


@pytest.fixture(scope="module")
def other_site(cluster: Cluster, operator_image: Image, trainer_image: Image) -> Iterator[Site]:
    with open_site(cluster, operator_image, trainer_image) as opened:
        yield opened


def exists(run: ClusterRun, stage: Stage, path: str) -> bool:
    """Whether a file that is not empty is on the volume, as a running pod of the stage sees it."""
    for pod in run.running(stage):
        try:
            run.site.kubectl("exec", pod["metadata"]["name"], "--", "test", "-s", f"/volume/{NAME}/{path}")
        except BenchError:
            continue
        return True
    return False


def suspend_and_resume(run: ClusterRun, stage: Stage, is_in_its_middle: Callable[[], bool]) -> None:
    def reached() -> bool:
        assert not run.is_completed, f"the middle of {stage} was missed"
        return is_in_its_middle()

    run.until(reached, f"the middle of {stage}")
    run.patch(suspend=True)
    run.until(lambda: run.status["phase"] == "Suspended", "suspension")
    run.until(lambda: not run.running(stage), f"the end of {stage}'s pods", 180)
    assert run.condition("Progressing")["reason"] == "Suspended"
    done = [s["stage"] for i in run.status["iterations"] for s in i["stages"] if s["phase"] == "Succeeded"]
    assert str(stage) not in done, f"{stage} was done before it could be suspended"
    run.patch(suspend=False)


@pytest.fixture(scope="module")
def interrupted(site: Site) -> ClusterRun:
    """One iteration, suspended in the middle of generate and of train, and then another one."""
    place_testbed(site, make_testbed())
    run = site.apply(NAME, {**SPEC, "iterations": 1})
    rollouts = f"{stage_folder(Stage.GENERATE, 0)}/{part_name(0)}"
    suspend_and_resume(run, Stage.GENERATE, lambda: exists(run, Stage.GENERATE, rollouts))
    suspend_and_resume(run, Stage.TRAIN, lambda: exists(run, Stage.TRAIN, f"iterations/000/checkpoints/{REPORTS_FILE}"))
    run.until_completed()
    run.patch(iterations=2)
    run.until(lambda: len(run.status["iterations"]) == 2 and run.is_completed, "the second iteration")
    return run


@pytest.fixture(scope="module")
def orphaned(other_site: Site) -> ClusterRun:
    """Two iterations, while the operator is killed whenever a Job has been made, has begun or has ended."""
    place_testbed(other_site, make_testbed())
    run = other_site.apply(NAME, SPEC)
    seen: set[str] = set()
    places: list[tuple[int, int]] = []

    def step() -> bool:
        for edge in edges(run) - seen:
            seen.add(edge)
            other_site.kubectl("delete", "pod", "-l", OPERATOR, "--grace-period=0", "--force", "--wait=false")
        places.append(place(run))
        return run.is_completed

    run.until(step, "completion", 2400)
    assert places == sorted(places), f"the status went back: {places}"
    names = [job["metadata"]["name"] for job in run.jobs()]
    all_edges = {f"{name} {what}" for name in names for what in ("made", "begun", "ended")}
    assert all_edges - seen <= {f"{NAME}-export-a1 ended"}, "the last edge is the run's own end, which may come first"
    return run


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


def place(run: ClusterRun) -> tuple[int, int]:
    """How far the status says the run is: finished iterations' stages."""
    status = run.status
    done = [s for i in status.get("iterations", ()) for s in i["stages"] if s["phase"] == "Succeeded"]
    return len(status.get("iterations", ())), len(done)


def test_a_suspended_stage_goes_on_from_what_it_had(interrupted: ClusterRun) -> None:
    attempts = {job["metadata"]["name"] for job in interrupted.jobs()}
    assert any("train-a2" in name for name in attempts)
    pods = [p for p in interrupted.pods(Stage.TRAIN) if p["metadata"]["labels"]["dynalign.io/attempt"] == "2"]
    assert "going on from" in interrupted.site.kubectl("logs", pods[0]["metadata"]["name"])


def test_no_job_was_made_twice(orphaned: ClusterRun) -> None:
    assert {job["metadata"]["labels"]["dynalign.io/attempt"] for job in orphaned.jobs()} == {"1"}
    events = json.loads(orphaned.site.kubectl("get", "events", "-o", "json"))["items"]
    made = [
        e["involvedObject"]["name"]
        for e in events
        if e["reason"] == "SuccessfulCreate" and e["involvedObject"]["kind"] == "Job"
    ]
    assert len(made) == len(set(made)) == len(orphaned.jobs())


def test_whatever_interrupts_a_run_the_artifacts_are_the_same(interrupted: ClusterRun, orphaned: ClusterRun) -> None:
    ours, theirs = interrupted.artifacts(), orphaned.artifacts()
    assert ours.keys() == theirs.keys()
    assert [folder for folder in ours if ours[folder] != theirs[folder]] == []
