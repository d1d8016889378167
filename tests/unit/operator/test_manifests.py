"""The objects that run a stage: goldens for reading, rules for what must hold of all of them."""

import re
from typing import Any

import pytest

from dynalign_contract.config import StageConfig
from dynalign_contract.stages import ONLINE_STAGES, Stage
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.labels import JobLabels, job_labels, read_job_labels
from dynalign_operator.planning.bundles import build_bundle
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.plan import JobBundle
from support.builders import RunBuilder, a_run
from support.goldens import Goldens
from support.simulation import SETTINGS, Simulation
from support.stage_bundles import first_bundles

FULL = (
    a_run()
    .stored()
    .with_shards(4)
    .with_spec(
        model={"uri": "pvc://weights/qwen", "tokenSecretRef": {"name": "hub", "key": "token"}},
        prompts={"supplied": {"uri": "pvc://datasets/mine.jsonl"}},
        training={"nodes": 2, "gpusPerNode": 8},
        engine={"tensorParallel": 2},
        scheduling={"queueName": "research", "priorityClassName": "batch"},
        stages={
            "judge": {
                "resources": {"requests": {"cpu": "8"}, "limits": {"memory": "64Gi"}},
                "nodeSelector": {"gpu": "h100"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "priorityClassName": "urgent",
                "runtimeClassName": "nvidia",
                "podLabels": {"team": "align"},
                "podAnnotations": {"note": "x"},
            },
            "evaluate": {"resources": {"limits": {"nvidia.com/gpu": "0"}}},
        },
    )
)


def bundles(run: RunBuilder) -> dict[Stage, JobBundle]:
    """One bundle a stage, the first that a run creates."""
    return first_bundles(run, lambda given: Simulation(given).finish().all_created)


def container(bundle: JobBundle) -> dict[str, Any]:
    (only,) = bundle.job["spec"]["template"]["spec"]["containers"]
    return only  # type: ignore[no-any-return]


def environment(bundle: JobBundle) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container(bundle)["env"]}


@pytest.fixture(scope="module")
def minimal() -> dict[Stage, JobBundle]:
    return bundles(a_run())


@pytest.fixture(scope="module")
def full() -> dict[Stage, JobBundle]:
    return bundles(FULL)


@pytest.mark.parametrize("stage", Stage)
def test_golden_of_a_minimal_run(stage: Stage, minimal: dict[Stage, JobBundle], goldens: Goldens) -> None:
    goldens.check_yaml(f"manifests/minimal-{stage}.yaml", [minimal[stage].job])


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.PROMPTS, Stage.JUDGE, Stage.TRAIN])
def test_golden_of_a_full_run(stage: Stage, full: dict[Stage, JobBundle], goldens: Goldens) -> None:
    goldens.check_yaml(f"manifests/full-{stage}.yaml", [full[stage].job])


def test_golden_of_the_volume(full: dict[Stage, JobBundle], goldens: Goldens) -> None:
    claim = full[Stage.FETCH].volume_claim
    assert claim is not None
    goldens.check_yaml("manifests/full-volume.yaml", [claim])


def test_golden_of_the_service_of_a_gang(full: dict[Stage, JobBundle], goldens: Goldens) -> None:
    assert {stage: bundle.service is not None for stage, bundle in full.items()} == {s: s is Stage.TRAIN for s in Stage}
    service = full[Stage.TRAIN].service
    assert service is not None
    goldens.check_yaml("manifests/full-service.yaml", [service])


@pytest.mark.parametrize("name", ["r", "7b", "x" * 63])
def test_a_gang_s_pods_find_the_first_of_them_by_names_that_dns_allows(name: str) -> None:
    bundle = bundles(a_run().named(name).with_spec(training={"nodes": 3}))[Stage.TRAIN]
    pod = bundle.job["spec"]["template"]["spec"]
    assert bundle.service is not None
    service = bundle.service["metadata"]["name"]
    assert pod["subdomain"] == service
    assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", service)
    assert f"--coordinator={bundle.name}-0.{service}:29400" in container(bundle)["args"]
    labels = bundle.job["spec"]["template"]["metadata"]["labels"]
    assert bundle.service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("stage", Stage)
def test_every_pod_is_restricted(stage: Stage, full: dict[Stage, JobBundle]) -> None:
    """The rules of the Pod Security Standard `restricted`, and what we ask for beyond."""
    pod = full[stage].job["spec"]["template"]["spec"]
    security = container(full[stage])["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    assert {"emptyDir", "persistentVolumeClaim", "configMap", "name"} >= {key for v in pod["volumes"] for key in v}


@pytest.mark.parametrize("stage", Stage)
def test_only_fetch_sees_the_token_and_only_two_stages_the_internet(stage: Stage, full: dict[Stage, JobBundle]) -> None:
    names = environment(full[stage])
    assert ("HF_TOKEN" in names) is (stage is Stage.FETCH)
    assert (names.get("HF_HUB_OFFLINE") == "1") is (stage not in ONLINE_STAGES)


@pytest.mark.parametrize("stage", Stage)
def test_every_path_lies_on_a_mount(stage: Stage, full: dict[Stage, JobBundle]) -> None:
    mounts = tuple(mount["mountPath"] for mount in container(full[stage])["volumeMounts"])
    paths = [value for value in environment(full[stage]).values() if value and value.startswith("/")]
    assert paths
    assert [path for path in paths if not path.startswith(mounts)] == []


@pytest.mark.parametrize(
    ("stage", "gpus"),
    [
        (Stage.FETCH, None),
        (Stage.PROMPTS, "2"),
        (Stage.GENERATE, "2"),
        (Stage.TRAIN, "8"),
        (Stage.EVALUATE, None),  # the user's own "0" wins
        (Stage.EXPORT, None),
        (Stage.REPORT, None),
    ],
)
def test_gpus(stage: Stage, gpus: str | None, full: dict[Stage, JobBundle]) -> None:
    assert container(full[stage])["resources"].get("limits", {}).get("nvidia.com/gpu") == gpus


def test_the_pod_reads_the_config_that_the_planner_wrote(full: dict[Stage, JobBundle]) -> None:
    bundle = full[Stage.JUDGE]
    volume = next(v for v in bundle.job["spec"]["template"]["spec"]["volumes"] if v["name"] == "config")
    assert volume["configMap"]["name"] == bundle.config_map["metadata"]["name"] == bundle.name
    config = StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
    assert (config.stage, config.iteration, config.shards) == (Stage.JUDGE, 0, 4)


def test_an_existing_claim_is_used_and_none_is_made() -> None:
    bundle = bundles(a_run().with_spec(storage={"existingClaim": "mine"}))[Stage.FETCH]
    volumes = bundle.job["spec"]["template"]["spec"]["volumes"]
    assert bundle.volume_claim is None
    assert {"name": "run", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_the_image_is_the_installation_s() -> None:
    observed = Observed(a_run().build())
    bundle = build_bundle(observed, observed.run.status, Step(Stage.FETCH), 1, BuildSettings(trainer_image="mine:7"))
    assert container(bundle)["image"] == "mine:7"
    assert SETTINGS.trainer_image != "mine:7"


@pytest.mark.parametrize("iteration", [None, 0, 12])
def test_labels_are_read_back(iteration: int | None) -> None:
    labels = JobLabels(run="r", stage=Stage.TRAIN, iteration=iteration, attempt=3)
    assert read_job_labels(job_labels(labels)) == labels
    assert read_job_labels({"dynalign.io/run": "r", "dynalign.io/stage": "sleep"}) is None
