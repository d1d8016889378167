"""Pods that do not start: every cause has its remedy, while the Job waits and when the wait is over."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.api.status import ConditionType, Phase
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import JobObservation
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.waiting import Cause, explain_progress, explain_wait, find_cause
from support.builders import T0, a_job, a_run, minutes
from support.simulation import Simulation

RUN = a_run().with_spec(model={"uri": "hf://a/b", "tokenSecretRef": {"name": "hub", "key": "token"}}).build()

SAID = {
    "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.": Cause.NO_PLACE,
    "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.": Cause.NO_PLACE,
    "Unschedulable: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.": Cause.VOLUME,
    'Unschedulable: persistentvolumeclaim "data" not found': Cause.VOLUME,
    "Unschedulable: 0/2 nodes are available: 2 node(s) had volume node affinity conflict.": Cause.VOLUME,
    "Unschedulable: 0/2 nodes: didn't find available persistent volumes to bind.": Cause.VOLUME,
    'SchedulerError: running PreBind plugin "VolumeBinding": binding volumes: timed out': Cause.VOLUME,
    "ErrImagePull: failed to pull registry.example.com/t:1": Cause.IMAGE,
    "ImagePullBackOff: Back-off pulling image": Cause.IMAGE,
    "InvalidImageName: couldn't parse image name": Cause.IMAGE,
    'CreateContainerConfigError: secret "hub" not found': Cause.REFERENCE,
    "CreateContainerConfigError: couldn't find key token in Secret team/hub": Cause.REFERENCE,
    "SchedulingGated: Scheduling is blocked due to non-empty scheduling gates": Cause.OTHER,
    "CreateContainerError: context deadline exceeded": Cause.OTHER,
}

REMEDIES = {
    Cause.NO_PLACE: "change resources, nodeSelector or tolerations in spec.stages.fetch",
    Cause.VOLUME: "`kubectl describe pvc r -n team`",
    Cause.IMAGE: "trainer.imagePullSecrets, whose Secrets must be in namespace team",
    Cause.REFERENCE: "Create it in namespace team (spec.model.tokenSecretRef asks for the key token of hub)",
    Cause.NO_POD: "`kubectl describe job r-fetch-a1 -n team`",
    Cause.OTHER: "`kubectl describe pods -n team -l batch.kubernetes.io/job-name=r-fetch-a1`",
    Cause.SILENT: "`kubectl describe pods -n team -l batch.kubernetes.io/job-name=r-fetch-a1`",
}


def waiting(message: str = "", **fields: object) -> JobObservation:
    reason = message.partition(": ")[0]
    return replace(a_job(Stage.FETCH).build(), reason=reason, message=message, results=(None,), **fields)  # type: ignore[arg-type]


def planned(job: JobObservation, after: timedelta) -> Plan:
    simulation = Simulation(RUN)
    simulation.plan()
    simulation.jobs = {job.name: job}
    simulation.now = T0 + after
    return simulation.plan()


def condition(decided: Plan, kind: ConditionType) -> tuple[str, str]:
    found = next(c for c in decided.status.conditions if c.type is kind)
    return found.reason, found.message


@pytest.mark.parametrize("message", SAID)
def test_what_is_said_decides_the_remedy(message: str) -> None:
    job = waiting(message)
    assert find_cause(job) is SAID[message]
    explained = explain_wait(RUN, job)
    assert explained.startswith(f"The cluster says: {message.rstrip('.')}. ")
    named = "describe pvc data -n team" if '"data"' in message else REMEDIES[SAID[message]]
    assert named in explained


def test_every_cause_has_a_remedy_of_its_own() -> None:
    assert REMEDIES.keys() == set(Cause)
    assert find_cause(waiting()) is Cause.SILENT
    assert find_cause(waiting(missing_pods=1)) is Cause.NO_POD
    for cause, job in ((Cause.SILENT, waiting()), (Cause.NO_POD, waiting(missing_pods=1))):
        assert REMEDIES[cause] in explain_wait(RUN, job)


def test_a_reference_other_than_the_token_is_not_called_the_token() -> None:
    run = a_run().build()
    assert "tokenSecretRef" not in explain_wait(run, waiting('CreateContainerConfigError: configmap "x" not found'))


@pytest.mark.parametrize("message", SAID)
def test_the_remedy_is_told_while_the_job_waits(message: str) -> None:
    reason, said = condition(planned(waiting(message), minutes(1)), ConditionType.PROGRESSING)
    assert reason == reasons.PENDING
    assert message.rstrip(".") in said
    assert explain_progress(RUN, waiting(message), T0) in said


@pytest.mark.parametrize("message", [*SAID, ""])
def test_the_remedy_is_told_when_the_wait_is_over(message: str) -> None:
    decided = planned(waiting(message), minutes(31))
    assert decided.status.phase is Phase.FAILED
    reason, said = condition(decided, ConditionType.STALLED)
    assert reason == reasons.PENDING_TIMEOUT
    assert explain_wait(RUN, waiting(message)) in said
    assert "raise spec.policy.pendingTimeout" in said
    assert "by itself" not in said


def test_a_pod_that_nobody_may_create_is_worth_a_word_after_half_a_minute() -> None:
    job = waiting(missing_pods=1)
    early = planned(job, timedelta(seconds=10))
    assert "takes no more pods" not in condition(early, ConditionType.PROGRESSING)[1]
    assert early.wake_at == T0 + timedelta(seconds=30)
    _, said = condition(planned(job, timedelta(seconds=30)), ConditionType.PROGRESSING)
    assert "The cluster takes no more pods of Job r-fetch-a1 (1 of 1 pods are missing)" in said


def test_a_shard_that_finds_no_place_is_told_while_the_others_run() -> None:
    job = replace(waiting("Unschedulable: 0/1 nodes: no GPU."), start_time=T0)
    reason, said = condition(planned(job, minutes(1)), ConditionType.PROGRESSING)
    assert reason == reasons.STAGE_RUNNING
    assert "no GPU. Free or add" in said
    _, stalled = condition(planned(job, minutes(15)), ConditionType.PROGRESSING)
    assert "no GPU. Free or add" in stalled


def test_a_job_that_lost_its_pod_waits_anew() -> None:
    """Its Job is older than pendingTimeout; the pod that replaces the lost one is not."""
    job = waiting("Unschedulable: 0/1 nodes are available.", waiting_since=T0 + minutes(100))
    decided = planned(job, minutes(101))
    assert decided.status.phase is not Phase.FAILED
    assert decided.wake_at == T0 + minutes(130)
    assert planned(job, minutes(130)).status.phase is Phase.FAILED
