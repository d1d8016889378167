"""What a Job and its pods say, as the API server writes it, and what the planner makes of it."""

from typing import Any

import pytest

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.observe import observe_claim, observe_job
from dynalign_operator.clusters.kubernetes.pods import INDEX, read_pod
from dynalign_operator.clusters.kubernetes.store import Kind, Store, job_of
from dynalign_operator.manifests.labels import JOB_NAME, JobLabels, job_labels
from dynalign_operator.planning.observed import DISRUPTED, JobPhase
from support.builders import a_result

LABELS = job_labels(JobLabels("r", Stage.JUDGE, 1, 2))


def a_job(*conditions: str, completions: int = 1, version: int = 1, uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "r-i001-judge-a2",
            "namespace": "n",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": LABELS,
            "creationTimestamp": "2026-11-24T10:00:00Z",
        },
        "spec": {"completions": completions, **spec},
        "status": {
            "conditions": [
                {"type": kind, "status": "True", "reason": "Why", "message": "said", "lastTransitionTime": T}
                for kind in conditions
            ]
        },
    }


T = "2026-11-24T10:05:00Z"


def a_pod(
    phase: str, state: dict[str, Any], *, index: int = 0, conditions: tuple[dict[str, str], ...] = ()
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"p{index}",
            "namespace": "n",
            "creationTimestamp": f"2026-11-24T10:00:0{index}Z",
            "labels": {**LABELS, JOB_NAME: "r-i001-judge-a2"},
            "annotations": {INDEX: str(index)},
        },
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": [{"name": "stage", "state": state}],
        },
    }


def ended(code: int, message: str = "", reason: str = "Error", at: str = T) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": "2026-11-24T10:01:00Z",
            "finishedAt": at,
        }
    }


def test_a_job_that_waits_quotes_the_scheduler() -> None:
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU."}
    job = observe_job(a_job(), [a_pod("Pending", {}, conditions=(refused,))])
    assert job is not None
    assert (job.stage, job.iteration, job.attempt) == (Stage.JUDGE, 1, 2)
    assert (job.phase, job.start_time, job.results) == (JobPhase.ACTIVE, None, (None,))
    assert (job.reason, job.message) == ("Unschedulable", "Unschedulable: 0/1 nodes: no GPU.")
    assert job.missing_pods == 0


def test_an_image_that_cannot_be_pulled_is_quoted() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    job = observe_job(a_job(), [a_pod("Pending", waiting)])
    assert job is not None
    assert (job.reason, job.message) == ("ImagePullBackOff", "ImagePullBackOff: not found")


def test_a_secret_that_is_missing_is_named_by_the_kubelet() -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}}
    job = observe_job(a_job(), [a_pod("Pending", waiting)])
    assert job is not None
    assert (job.reason, job.message) == (
        "CreateContainerConfigError",
        'CreateContainerConfigError: secret "hub" not found',
    )


def test_a_pod_that_replaces_a_lost_one_begins_to_wait_anew() -> None:
    running = a_pod("Running", {"running": {"startedAt": "2026-11-24T10:00:05Z"}}, index=0)
    job = observe_job(a_job(completions=3), [running, a_pod("Pending", {}, index=2), a_pod("Pending", {}, index=1)])
    assert job is not None
    assert job.waiting_since is not None
    assert job.waiting_since.second == 1


def test_pods_that_were_never_created_are_missing_and_those_that_succeeded_and_were_removed_are_not() -> None:
    job = a_job(completions=4)
    job["status"]["succeeded"] = 2
    done = a_pod("Succeeded", ended(0), index=0)
    observed = observe_job(job, [done, a_pod("Running", {"running": {"startedAt": T}}, index=2)])
    assert observed is not None
    assert observed.missing_pods == 1


def test_a_container_that_is_being_created_is_no_trouble() -> None:
    job = observe_job(a_job(), [a_pod("Pending", {"waiting": {"reason": "ContainerCreating"}})])
    assert job is not None
    assert job.message == ""


def test_a_running_job_began_with_its_first_container() -> None:
    pods = [a_pod("Running", {"running": {"startedAt": f"2026-11-24T10:0{i}:00Z"}}, index=i) for i in (2, 1)]
    job = observe_job(a_job(completions=3), pods)
    assert job is not None
    assert job.start_time is not None
    assert job.start_time.minute == 1


def test_the_time_of_every_pod_is_that_of_its_container_and_a_replaced_one_counts_too() -> None:
    running = a_pod("Running", {"running": {"startedAt": "2026-11-24T10:03:00Z"}}, index=1)
    failed = a_pod("Failed", ended(1, at="2026-11-24T10:02:00Z"), index=1)
    job = observe_job(
        a_job(completions=3), [running, a_pod("Pending", {}, index=2), failed, a_pod("Succeeded", ended(0))]
    )
    assert job is not None
    spans = [(pod.index, f"{pod.start_time:%M}", pod.end_time and f"{pod.end_time:%M}") for pod in job.pods]
    assert sorted(spans, key=str) == [(0, "01", "05"), (1, "01", "02"), (1, "03", None)]


def test_results_are_read_from_the_termination_messages_in_the_order_of_the_indexes() -> None:
    results = [a_result(path=f"x/shard-{i:03d}") for i in range(3)]
    pods = [a_pod("Succeeded", ended(0, results[i].encode().decode()), index=i) for i in (2, 0, 1)]
    job = observe_job(a_job("Complete", completions=3), pods)
    assert job is not None
    assert (job.phase, job.results) == (JobPhase.SUCCEEDED, tuple(results))


def test_the_final_exit_code_among_several_decides() -> None:
    pods = [
        a_pod("Failed", ended(1, at="2026-11-24T10:09:00Z"), index=0),
        a_pod("Failed", ended(ExitCode.BAD_INPUT, at="2026-11-24T10:04:00Z"), index=1),
    ]
    job = observe_job(a_job("Failed", completions=2), pods)
    assert job is not None
    assert (job.phase, job.exit_code, job.reason, job.message) == (JobPhase.FAILED, 11, "Why", "said")


def test_a_job_that_outlived_its_deadline_was_not_disrupted_although_its_pods_are_gone() -> None:
    found = a_job("Failed")
    found["status"]["conditions"][0] |= {"reason": "DeadlineExceeded", "message": "Job was active longer"}
    job = observe_job(found, [])
    assert job is not None
    assert (job.reason, job.message) == ("DeadlineExceeded", "Job was active longer")


@pytest.mark.parametrize("there", [True, False])
def test_a_disrupted_pod_and_one_that_is_gone_are_nobodys_fault(there: bool) -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    job = observe_job(a_job("Failed"), [a_pod("Failed", ended(137), conditions=(target,))] if there else [])
    assert job is not None
    assert job.reason == DISRUPTED
    assert ("EvictionByEvictionAPI: drained" if there else "its pods were removed") in job.message


GANG: dict[str, Any] = {"successPolicy": {}, "completions": 2}
DISRUPTION = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node lost"}
LATER = "2026-11-24T10:06:00Z"


def test_the_first_loss_in_a_gang_decides_and_not_those_who_miss_it() -> None:
    said = a_result(path="x").encode().decode()
    collateral = a_pod("Failed", ended(1, said, at=LATER), index=0)
    for state, code in ((ended(137, reason="OOMKilled"), 137), (ended(1), 1)):
        job = observe_job(a_job("Failed", **GANG), [collateral, a_pod("Failed", state, index=1)])
        assert job is not None
        assert (job.exit_code, job.results) == (code, (None, None))
    for at in (T, LATER):
        lost = a_pod("Failed", ended(137, at=at), index=1, conditions=(DISRUPTION,))
        job = observe_job(a_job("Failed", **GANG), [a_pod("Failed", ended(1), index=0), lost])
        assert job is not None
        assert job.reason == DISRUPTED


def test_a_gang_whose_disrupted_pod_is_gone_was_disrupted() -> None:
    job = a_job("Failed", **GANG)
    job["status"]["conditions"][0] |= {
        "reason": "PodFailurePolicy",
        "message": "Pod n/p1 has condition DisruptionTarget matching FailJob rule at index 0",
    }
    observed = observe_job(job, [a_pod("Failed", ended(1))])
    assert observed is not None
    assert observed.reason == DISRUPTED


def test_out_of_memory_says_which_limit_to_raise() -> None:
    job = observe_job(a_job("Failed"), [a_pod("Failed", ended(137, reason="OOMKilled"))])
    assert job is not None
    assert (job.exit_code, job.reason) == (137, "OOMKilled")
    assert "spec.stages.judge.resources.limits.memory" in job.message


def test_foreign_labels_are_not_observed() -> None:
    job = a_job()
    job["metadata"]["labels"] = {"app": "other"}
    assert observe_job(job, []) is None


def test_a_suspended_job_and_one_that_is_being_deleted() -> None:
    job = a_job(suspend=True)
    job["metadata"]["deletionTimestamp"] = T
    observed = observe_job(job, [])
    assert observed is not None
    assert (observed.suspended, observed.deleting) == (True, True)


def test_a_job_that_its_queue_has_let_go_counts_as_queued_until_its_controller_has_noticed() -> None:
    observed = observe_job(a_job("Suspended", suspend=False), [])
    assert observed is not None
    assert observed.suspended


@pytest.mark.parametrize(
    ("spec", "status", "modes"),
    [
        (["ReadWriteMany"], {}, {"ReadWriteMany"}),
        (["ReadWriteOnce"], {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, {"ReadWriteOnce", "ReadWriteMany"}),
        (["ReadWriteMany"], {"accessModes": ["ReadWriteOnce"]}, {"ReadWriteOnce"}),
    ],
)
def test_a_claim_offers_what_its_volume_does(spec: list[str], status: dict[str, Any], modes: set[str]) -> None:
    claim = observe_claim({"spec": {"accessModes": spec}, "status": status})
    assert claim.access_modes == modes


def test_the_store_keeps_the_newest_version_and_finds_by_run() -> None:
    store, run = Store(), RunKey("n", "r")
    assert store.put(Kind.JOB, a_job(version=5)) == run
    store.put(Kind.JOB, a_job("Complete", version=4))
    (kept,) = store.objects_of_run(Kind.JOB, run)
    assert kept["metadata"]["resourceVersion"] == "5"
    assert store.is_behind(Kind.JOB, a_job(version=6))
    assert not store.is_behind(Kind.JOB, a_job(version=5))
    store.put(Kind.JOB, a_job(version=3, uid="another"))
    assert store.remove(Kind.JOB, a_job(uid="u")) == run
    assert len(store.objects_of_run(Kind.JOB, run)) == 1
    store.remove(Kind.JOB, a_job(uid="another"))
    assert store.objects_of_run(Kind.JOB, run) == []
    assert job_of(a_pod("Running", {})) == "r-i001-judge-a2"


def labelled(run: str, version: int) -> dict[str, Any]:
    job = a_job(version=version)
    job["metadata"]["labels"] = {**job["metadata"]["labels"], "dynalign.io/run": run}
    return job


def test_an_object_whose_run_label_changes_moves_to_the_other_run() -> None:
    store, other = Store(), RunKey("n", "other")
    store.put(Kind.JOB, a_job(version=5))
    assert store.put(Kind.JOB, labelled("other", 6)) == other
    assert store.objects_of_run(Kind.JOB, RunKey("n", "r")) == []
    assert len(store.objects_of_run(Kind.JOB, other)) == 1
    store.remove(Kind.JOB, labelled("a-third", 7))
    assert [store.objects_of_run(Kind.JOB, RunKey("n", name)) for name in ("r", "other", "a-third")] == [[], [], []]


def test_the_store_keeps_what_is_read_and_nothing_else() -> None:
    fields = {"managedFields": [{"f:x": {}}] * 100, "annotations": {"kubectl.kubernetes.io/last-applied": "x" * 5000}}
    pod = a_pod("Running", {"running": {"startedAt": "2026-11-24T10:00:00Z"}})
    pod["metadata"] |= fields
    pod["spec"] = {"containers": [{"name": "stage", "env": ["x" * 5000]}]}
    store = Store()
    store.put(Kind.POD, pod)
    (kept,) = store.objects_of_run(Kind.POD, RunKey("n", "r"))
    assert "managedFields" not in kept["metadata"]
    assert len(str(kept)) < 1500
    job = a_job()
    assert observe_job(job, [kept]) == observe_job(job, [pod])
    store.put(Kind.JOB, {**job, "metadata": {**job["metadata"], **fields}})
    (kept_job,) = store.objects_of_run(Kind.JOB, RunKey("n", "r"))
    assert observe_job(kept_job, [pod]) == observe_job(job, [pod])


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "9" * 30, None])
def test_a_pod_with_a_senseless_index_is_the_first(text: str | None) -> None:
    pod = a_pod("Running", {})
    pod["metadata"]["annotations"] = {INDEX: text}
    assert read_pod(pod).index == 0
    assert observe_job(a_job(), [pod]) is not None
