"""What the site dictates about the stages' pods: identity, proxies, authorities, mirror, defaults; and what a run adds."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from dynalign_contract.stages import ONLINE_STAGES, Stage
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.manifests.installation import SettingsError
from dynalign_operator.planning.bundles import build_bundle
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_operator.service.settings import read_settings
from support.builders import T0, RunBuilder, a_run
from support.stage_bundles import first_bundles

PROJECT_RANGE = range(1_000_680_000, 1_000_690_000)
"""The uids of an OpenShift project."""


def bundles(run: RunBuilder, **pods: Any) -> dict[Stage, JobBundle]:
    settings = BuildSettings(pods=PodSettings.model_validate(pods))
    return first_bundles(run, lambda given: rehearse(given, {}, T0, settings))


def pod(bundle: JobBundle) -> dict[str, Any]:
    spec: dict[str, Any] = bundle.job["spec"]["template"]["spec"]
    return spec


def container(bundle: JobBundle) -> dict[str, Any]:
    (only,) = pod(bundle)["containers"]
    return only  # type: ignore[no-any-return]


def environment(bundle: JobBundle) -> dict[str, str]:
    entries = container(bundle)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries), "a variable is set twice"
    return {entry["name"]: entry.get("value", "") for entry in entries}


def refusals_of_restricted_v2(spec: dict[str, Any]) -> list[str]:
    """What OpenShift's SecurityContextConstraints of that name would refuse in a project with PROJECT_RANGE."""
    contexts = [spec.get("securityContext", {}), *(c.get("securityContext", {}) for c in spec["containers"])]
    refused = [
        f"{field}: {context[field]}"
        for context in contexts
        for field in ("runAsUser", "fsGroup")
        if field in context and context[field] not in PROJECT_RANGE
    ]
    refused += [name for context in contexts for name in ("seLinuxOptions", "supplementalGroups") if name in context]
    kinds = {key for volume in spec["volumes"] for key in volume} - {"name"}
    return refused + sorted(kinds - {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi"})


@pytest.mark.parametrize("stage", Stage)
def test_pods_without_an_identity_suit_restricted_v2(stage: Stage) -> None:
    assert refusals_of_restricted_v2(pod(bundles(a_run())[stage])) == ["runAsUser: 1000", "fsGroup: 1000"]
    spec = pod(bundles(a_run(), podSecurity=None)[stage])
    assert refusals_of_restricted_v2(spec) == []
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_an_identity_of_the_site_s_own() -> None:
    security = pod(bundles(a_run(), podSecurity={"runAsUser": 7, "runAsGroup": None})[Stage.TRAIN])["securityContext"]
    assert {name: security.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {
        "runAsUser": 7,
        "runAsGroup": None,
        "fsGroup": 1000,
    }


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_user_that_no_image_knows_has_a_name_and_a_home() -> None:
    ask = f"import getpass, os, pathlib; os.setuid({PROJECT_RANGE[0]}); print(getpass.getuser(), pathlib.Path.home())"
    known = environment(bundles(a_run(), podSecurity=None)[Stage.GENERATE])
    asked = subprocess.run([sys.executable, "-c", ask], env=known, capture_output=True, text=True, check=True)
    assert asked.stdout.split() == ["dynalign", known["HOME"]]
    nameless = subprocess.run([sys.executable, "-c", ask], env={}, capture_output=True, text=True, check=False)
    assert nameless.returncode != 0, "without the variables there is no name"


@pytest.mark.parametrize("stage", Stage)
def test_proxies_authorities_and_mirror(stage: Stage) -> None:
    bundle = bundles(
        a_run(),
        proxy={"http": "http://proxy:3128", "https": "http://proxy:3129", "noProxy": ["registry.lan"]},
        caBundle={"configMap": "site-trust", "key": "all.pem"},
        hubEndpoint="https://hub.lan:8443",
    )[stage]
    found = environment(bundle)
    assert found["HTTP_PROXY"] == found["http_proxy"] == "http://proxy:3128"
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://proxy:3129"
    assert found["NO_PROXY"] == found["no_proxy"]
    assert {"localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "registry.lan"} <= set(
        found["NO_PROXY"].split(",")
    )
    assert found.get("HF_ENDPOINT") == ("https://hub.lan:8443" if stage in ONLINE_STAGES else None)
    file = found["SSL_CERT_FILE"]
    assert found["REQUESTS_CA_BUNDLE"] == file
    (mount,) = [m for m in container(bundle)["volumeMounts"] if file.startswith(m["mountPath"] + "/")]
    (volume,) = [v for v in pod(bundle)["volumes"] if v["name"] == mount["name"]]
    assert mount["readOnly"] is True
    assert volume["configMap"]["name"] == "site-trust"
    assert volume["configMap"]["items"] == [{"key": "all.pem", "path": file.removeprefix(mount["mountPath"] + "/")}]


def test_a_run_s_variables_go_before_the_site_s_and_dynalign_s_own_before_all() -> None:
    run = a_run().with_spec(
        stages={
            "train": {
                "env": [
                    {"name": "NCCL_SOCKET_IFNAME", "value": "eth1"},
                    {"name": "HTTPS_PROXY", "value": "http://mine:1"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
                ]
            }
        }
    )
    site = [{"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}, {"name": "NCCL_DEBUG", "value": "WARN"}]
    found = bundles(run, env=site, proxy={"https": "http://proxy:3129"})
    train = environment(found[Stage.TRAIN])
    assert (train["NCCL_SOCKET_IFNAME"], train["NCCL_DEBUG"]) == ("eth1", "WARN")
    assert train["HTTPS_PROXY"] == train["https_proxy"] == "http://mine:1"
    assert environment(found[Stage.JUDGE])["NCCL_SOCKET_IFNAME"] == "eth0"
    reference = next(entry for entry in container(found[Stage.TRAIN])["env"] if entry["name"] == "KEY")
    assert reference["valueFrom"] == {"secretKeyRef": {"name": "keys", "key": "k"}}


def test_defaults_of_pods_are_merged_the_run_s_own_last() -> None:
    run = a_run().with_spec(
        stages={"train": {"nodeSelector": {"gpu": "h100"}, "resources": {"requests": {"memory": "300Gi"}}}}
    )
    found = bundles(
        run,
        podDefaults={
            "nodeSelector": {"gpu": "any", "pool": "ml"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "runtimeClassName": "nvidia",
            "priorityClassName": "batch",
            "podLabels": {"team": "align"},
            "stages": {"train": {"resources": {"requests": {"memory": "200Gi", "cpu": "32"}}}},
        },
    )
    spec = pod(found[Stage.TRAIN])
    assert spec["nodeSelector"] == {"gpu": "h100", "pool": "ml"}
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["priorityClassName"] == "batch"
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert container(found[Stage.TRAIN])["resources"]["requests"] == {"memory": "300Gi", "cpu": "32"}
    assert found[Stage.JUDGE].job["spec"]["template"]["metadata"]["labels"]["team"] == "align"


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_requests_something_and_bounds_what_it_writes(stage: Stage) -> None:
    bundle = bundles(a_run().with_spec(training={"gpusPerNode": 4}, engine={"tensorParallel": 2}))[stage]
    requests = container(bundle)["resources"]["requests"]
    gpus = {Stage.TRAIN: 4, Stage.FETCH: 0, Stage.EXPORT: 0, Stage.REPORT: 0}.get(stage, 2)
    assert requests == (
        {"cpu": str(2 * gpus), "memory": f"{8 * gpus}Gi"} if gpus else {"cpu": "100m", "memory": "512Mi"}
    )
    assert environment(bundle).get("NVIDIA_VISIBLE_DEVICES") == (None if gpus else "void")
    for volume in pod(bundle)["volumes"]:
        assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_no_request_is_larger_than_the_run_s_limit() -> None:
    limits = {"memory": "256Mi", "cpu": "50m"}
    run = a_run().with_spec(stages={"fetch": {"resources": {"limits": limits}}})
    for defaults in ({}, {"resources": {"requests": {"memory": "2Gi"}}}):
        resources = container(bundles(run, podDefaults=defaults)[Stage.FETCH])["resources"]
        assert resources == {"requests": {}, "limits": limits}, "Kubernetes requests the limit"


def test_later_stages_see_their_own_folder_of_a_claim_that_others_use_too() -> None:
    found = bundles(a_run().with_spec(storage={"existingClaim": "shared"}))
    for stage, bundle in found.items():
        mount = next(m for m in container(bundle)["volumeMounts"] if m["name"] == "run")
        whole = stage in (Stage.FETCH, Stage.ROLLOUT, Stage.PROMPTS)
        assert (mount["mountPath"], mount.get("subPath")) == (("/volume", None) if whole else ("/volume/r", "r"))
        assert ("DYNALIGN_COMPILED" in environment(bundle)) is False, "others could put code there"
    assert "DYNALIGN_COMPILED" in environment(bundles(a_run())[Stage.GENERATE])
    assert "DYNALIGN_COMPILED" not in environment(bundles(a_run(), shareCompiled=False)[Stage.GENERATE])


@pytest.mark.parametrize(
    ("pods", "sentence"),
    [
        ({"podDefaults": {"tolerations": [{"op": "Exists"}]}}, r"trainer.podDefaults.tolerations\[0\].op is unknown"),
        ({"podSecurity": {"runAsUser": 0}}, "trainer.podSecurity.runAsUser is 0; write a whole number"),
        ({"proxy": {"http": "proxy:3128"}}, "trainer.proxy.http is .*; write http://host:port"),
        ({"env": [{"name": "DYNALIGN_PVC_ROOT", "value": "/"}]}, "DYNALIGN_PVC_ROOT is set by dynalign itself"),
        ({"podDefaults": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, "asked for by the runs themselves"),
    ],
)
def test_a_mistake_in_the_chart_s_values_is_named(pods: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_settings({"DYNALIGN_TRAINER_PODS": json.dumps(pods)})


def test_the_settings_reach_the_pods_that_the_planner_builds() -> None:
    settings = read_settings({"DYNALIGN_TRAINER_PODS": '{"podSecurity": null}'})
    observed = Observed(a_run().build())
    bundle = build_bundle(observed, observed.run.status, Step(Stage.FETCH), 1, settings.build)
    assert "runAsUser" not in pod(bundle)["securityContext"]
