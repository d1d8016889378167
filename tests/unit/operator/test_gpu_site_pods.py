"""Pods of a GPU site: devices, places, volumes, images and identities that a run or the installation names."""

from collections.abc import Mapping
from typing import Any

import pytest

from dynalign_contract.pod_paths import Variable
from dynalign_contract.stages import Stage
from dynalign_operator.api.pods import StageOverrides
from dynalign_operator.api.status import ConditionType
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.planner import plan
from dynalign_operator.planning.rehearsal import rehearse
from support.builders import T0, RunBuilder, a_run
from support.simulation import Simulation, succeed


def jobs_of(run: RunBuilder, **pods: Any) -> dict[Stage, JobBundle]:
    settings = BuildSettings(pods=PodSettings.model_validate(pods))
    return {bundle.step.stage: bundle for bundle in rehearse(run.with_iterations(1).build(), {}, T0, settings)}


def pod_of(stage: Stage, overrides: Mapping[str, Any], **pods: Any) -> dict[str, Any]:
    run = a_run().with_spec(stages={stage.value: overrides}, training={"gpusPerNode": 8})
    pod: dict[str, Any] = jobs_of(run, **pods)[stage].job["spec"]["template"]["spec"]
    return pod


def resources_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["containers"][0]["resources"]
    return found


def test_gpus_are_asked_for_under_the_name_that_the_site_has_for_them() -> None:
    resources = resources_of(pod_of(Stage.TRAIN, {"gpuResource": "amd.com/gpu"}))
    assert resources["limits"] == {"amd.com/gpu": "8"}
    by_site = resources_of(pod_of(Stage.TRAIN, {}, podDefaults={"gpuResource": "amd.com/gpu"}))
    assert by_site == resources
    assert resources["requests"] == {"cpu": "16", "memory": "64Gi"}


def test_no_gpu_of_another_name_is_none_at_all() -> None:
    none = {"gpuResource": "amd.com/gpu", "resources": {"limits": {"amd.com/gpu": "0"}}}
    pod = pod_of(Stage.GENERATE, none)
    assert "limits" not in resources_of(pod)
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in pod["containers"][0]["env"]


def test_no_gpu_under_the_site_s_name_is_none_at_all() -> None:
    none = {"resources": {"limits": {"amd.com/gpu": "0"}}}
    assert "limits" not in resources_of(pod_of(Stage.GENERATE, none, podDefaults={"gpuResource": "amd.com/gpu"}))


def test_devices_by_claims_take_the_place_of_a_number() -> None:
    claims = {"resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "eight"}]}
    pod = pod_of(Stage.TRAIN, claims)
    assert resources_of(pod)["claims"] == [{"name": "gpus"}]
    assert "limits" not in resources_of(pod)
    assert pod["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": "eight"}]


def test_a_stage_without_gpus_claims_no_devices() -> None:
    defaults = {"resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "one"}]}
    pod = pod_of(Stage.EXPORT, {}, podDefaults=defaults)
    assert "resourceClaims" not in pod
    assert "claims" not in resources_of(pod)


NODES = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]
        }
    }
}


@pytest.mark.parametrize("written", [None, "10m"])
def test_training_is_told_the_grace_that_its_pod_has(written: str | None) -> None:
    pod = pod_of(Stage.TRAIN, {"terminationGracePeriod": written} if written else {})
    told = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert told[Variable.GRACE_SECONDS] == str(pod["terminationGracePeriodSeconds"])
    assert pod["terminationGracePeriodSeconds"] == (600 if written else 120)


def test_affinity_arrives_as_it_was_written() -> None:
    found = pod_of(Stage.TRAIN, {"affinity": NODES})["affinity"]["nodeAffinity"]
    assert found["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]
    }


def test_a_spread_is_that_of_the_job_s_own_pods() -> None:
    spread = {"topologySpread": [{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]}
    run = a_run().with_spec(stages={"generate": spread}).with_shards(4)
    bundle = jobs_of(run)[Stage.GENERATE]
    (constraint,) = bundle.job["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "zone"
    assert constraint["maxSkew"] == 1
    assert constraint["labelSelector"] == {"matchLabels": {"batch.kubernetes.io/job-name": bundle.name}}


VOLUMES = {
    "plugins": {"mountPath": "/mnt/plugins", "configMap": {"name": "plugins"}},
    "scratch": {"mountPath": "/mnt/scratch", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
    "corpus": {"mountPath": "/mnt/corpus", "persistentVolumeClaim": {"claimName": "corpus"}},
    "out": {"mountPath": "/mnt/out", "persistentVolumeClaim": {"claimName": "out", "readOnly": False}},
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_is_mounted_where_it_was_asked_for(name: str) -> None:
    asked: dict[str, Any] = VOLUMES[name]
    pod = pod_of(Stage.TRAIN, {"volumes": [{"name": name, **asked}]})
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == asked["mountPath"]]
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    (kind,) = asked.keys() - {"mountPath"}
    assert asked[kind].items() <= volume[kind].items()
    assert mount.get("readOnly", False) is (name in ("plugins", "corpus"))


def test_a_claim_that_a_volume_names_is_waited_for_before_any_work() -> None:
    run = a_run().with_spec(stages={"train": {"volumes": [{"name": "corpus", **VOLUMES["corpus"]}]}}).build()
    planned = plan(Observed(run, claims={}), T0, BuildSettings())
    assert planned.create == ()
    assert stalled(planned.status).reason == reasons.MISSING_CLAIM
    assert "spec.stages.train.volumes" in stalled(planned.status).message


def test_shared_memory_and_grace_are_the_run_s() -> None:
    pod = pod_of(Stage.TRAIN, {"sharedMemory": "64Gi", "terminationGracePeriod": "10m"})
    (shared,) = [v for v in pod["volumes"] if v["name"] == "shm"]
    assert shared["emptyDir"]["sizeLimit"] == "64Gi"
    assert pod["terminationGracePeriodSeconds"] == 600
    usual = pod_of(Stage.TRAIN, {})
    assert usual["terminationGracePeriodSeconds"] == 120


@pytest.mark.parametrize(
    ("field", "value", "setting"),
    [
        ("image", "registry.example.com/trainer:1", "allowedImages"),
        ("serviceAccountName", "trainer", "allowedServiceAccounts"),
    ],
)
def test_what_the_installation_does_not_let_runs_name_is_refused_before_any_work(
    field: str, value: str, setting: str
) -> None:
    run = a_run().with_spec(stages={"train": {field: value}}).build()

    def planned(*allowed: str) -> Any:
        pods = PodSettings.model_validate({setting: allowed})
        return plan(Observed(run), T0, BuildSettings(pods=pods))

    for allowed in ((), ("other",), (value[:-1],)):
        refused = planned(*allowed)
        assert refused.create == ()
        assert stalled(refused.status).reason == reasons.REFUSED
        assert f"spec.stages.train.{field} is {value}" in stalled(refused.status).message
        assert f"trainer.{setting}" in stalled(refused.status).message
    for allowed in ((value,), ("*",), (f"{value[:4]}*",)):
        assert planned(*allowed).create


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in (Stage.FETCH, Stage.PROMPTS)])
def test_an_image_that_is_named_once_the_run_has_begun_is_refused_in_every_stage(stage: Stage) -> None:
    """Reports too, which are no steps of the run: whoever may change a run must not start code of another image."""

    def images(*allowed: str) -> set[str]:
        settings = BuildSettings(pods=PodSettings(allowed_images=allowed))
        rollout = "Fused" if stage is Stage.ROLLOUT else "Separate"
        iterations = 2 if stage is Stage.ROLLOUT else 1  # the first rollout is under way by then
        simulation = Simulation(a_run().with_iterations(iterations).with_spec(rollout=rollout).build())
        simulation.until(Stage.ROLLOUT if stage is Stage.ROLLOUT else Stage.PROMPTS, 0)
        stages = simulation.run.spec.stages.model_copy(update={stage.value: StageOverrides(image="evil:1")})
        simulation.change_spec(stages=stages)
        made: set[str] = set()
        for _ in range(12):
            planned = plan(simulation.observed(), simulation.now, settings)
            made |= {bundle.job["spec"]["template"]["spec"]["containers"][0]["image"] for bundle in planned.create}
            simulation.step(succeed)
        return made

    assert "evil:1" in images("*")
    assert "evil:1" not in images()


def test_an_image_of_the_run_s_own_is_used_in_its_stage_alone() -> None:
    run = a_run().with_spec(stages={"train": {"image": "example.com/t:2", "serviceAccountName": "trainer"}})
    found = jobs_of(run)
    pods = {stage: bundle.job["spec"]["template"]["spec"] for stage, bundle in found.items()}
    assert pods[Stage.TRAIN]["containers"][0]["image"] == "example.com/t:2"
    assert pods[Stage.TRAIN]["serviceAccountName"] == "trainer"
    assert pods[Stage.TRAIN]["automountServiceAccountToken"] is False
    assert {pods[stage]["containers"][0]["image"] for stage in pods if stage is not Stage.TRAIN} == {
        BuildSettings().trainer_image
    }


def stalled(status: Any) -> Any:
    return next(condition for condition in status.conditions if condition.type is ConditionType.STALLED)
