"""Intervals from the events of watches, and who may not run beside a benchmark."""

import json
from typing import Any

import pytest

from benchmarks.job_events import Arrival, Transition, find_kubernetes_share, find_transitions
from lab.cluster import LabError, refuse_rivals


def job(at: float, kind: str, name: str, *conditions: str) -> Arrival:
    stated = [{"type": condition, "status": "True"} for condition in conditions]
    return Arrival(at, kind, {"kind": "Job", "metadata": {"name": name}, "status": {"conditions": stated}})


def pod(at: float, kind: str, name: str, **state: Any) -> Arrival:
    metadata = {
        "name": f"{name}-x",
        "labels": {"batch.kubernetes.io/job-name": name},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    status = {"containerStatuses": [{"name": "stage", "state": state}]} if state else {}
    return Arrival(at, kind, {"kind": "Pod", "metadata": metadata, "status": status})


JOBS = [
    job(1.0, "ADDED", "a"),
    job(4.0, "MODIFIED", "a", "SuccessCriteriaMet"),
    job(5.0, "MODIFIED", "a", "SuccessCriteriaMet", "Complete"),
    job(5.1, "MODIFIED", "a", "SuccessCriteriaMet", "Complete"),
    job(5.25, "ADDED", "b"),
    job(5.3, "MODIFIED", "a", "Complete"),
    job(9.0, "MODIFIED", "b", "Complete"),
    job(9.5, "ADDED", "c"),
    job(12.0, "MODIFIED", "c", "Complete"),
]
ENDED = {"terminated": {"startedAt": "2026-01-01T00:00:02Z"}}
PODS = [
    pod(1.25, "ADDED", "a"),
    pod(2.0, "MODIFIED", "a", waiting={"reason": "ContainerCreating"}),
    pod(3.0, "MODIFIED", "a", **ENDED),
    pod(3.5, "MODIFIED", "a", **ENDED),
    pod(6.0, "ADDED", "b"),
]


def test_a_transition_goes_from_the_first_word_of_completion_to_the_next_job() -> None:
    assert find_transitions(JOBS) == [Transition("a", "b", 0.25), Transition("b", "c", 0.5)]


def test_a_job_whose_completion_was_not_seen_begins_no_transition() -> None:
    assert find_transitions([job(1.0, "ADDED", "a"), job(2.0, "MODIFIED", "a", "Failed"), job(3.0, "ADDED", "b")]) == []


def test_the_share_of_kubernetes_counts_whole_stages_only() -> None:
    share = find_kubernetes_share(JOBS, PODS)
    assert share.job_to_pod == (0.25,)
    assert share.pod_to_start == (2.0,)
    assert share.pod_to_end == (1.75,)
    assert share.end_to_complete == (2.0,)


def deployments(namespaces: str, *, replicas: int = 1) -> str:
    container = {"env": [{"name": "DYNALIGN_NAMESPACES", "value": namespaces}] if namespaces else []}
    if not namespaces:
        container["env"] = [{"name": "DYNALIGN_NAMESPACES"}]
    spec = {"replicas": replicas, "template": {"spec": {"containers": [container]}}}
    return json.dumps({"items": [{"metadata": {"name": "o", "namespace": "system"}, "spec": spec}]})


def test_an_operator_of_all_namespaces_is_refused() -> None:
    with pytest.raises(LabError, match="kubectl -n system scale deployment o --replicas 0"):
        refuse_rivals(deployments(""))


def test_one_that_is_stopped_or_has_namespaces_of_its_own_is_not() -> None:
    refuse_rivals(deployments("", replicas=0))
    refuse_rivals(deployments("team"))
    refuse_rivals('{"items": []}')
