"""What the chart's admission policy lets runs name, on a real API server."""

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lab.api_server import PATIENCE, ApiServer, start_api_server
from support.chart import of_kind, render
from support.player import run_object

pytestmark = pytest.mark.cluster

TEAM = "team"
ALLOWED = {
    "secrets": ["hub", "dynalign-*"],
    "endpointHosts": ["api.example.com", "*.models.svc", "s3.example.com", "registry.example.com"],
    "claims": ["weights"],
    "priorityClasses": ["batch"],
    "runtimeClasses": ["nvidia"],
    "podAnnotations": ["example.com/*"],
    "podLabels": ["team"],
    "tolerations": ["gpu"],
    "nodeSelectors": ["gpu", "topology.kubernetes.io/*"],
    "environment": ["NCCL_*"],
}
SERVER = {"url": "https://api.example.com/v1", "model": "big", "apiKeySecretRef": {"name": "dynalign-keys", "key": "k"}}
REWARD: dict[str, Any] = {
    "name": "service",
    "type": "Http",
    "endpoint": {"url": "https://api.example.com/score", "apiKeySecretRef": {"name": "dynalign-keys", "key": "k"}},
}
OUTSIDE: dict[str, Any] = {"name": "outside", "judge": "Endpoint", "endpoint": SERVER}
BUCKET = {
    "endpoint": "https://s3.example.com",
    "bucket": "models",
    "prefix": "mine",
    "credentialsSecretRef": {"name": "dynalign-s3"},
}
REGISTRY = {
    "registry": "registry.example.com:5000",
    "repository": "models/mine",
    "credentialsSecretRef": {"name": "dynalign-registry"},
}
GOOD: dict[str, Any] = {
    "model": {"uri": "hf://org/name", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "prompts": {
        "agents": {"author": {"model": "Endpoint", "endpoint": SERVER}},
        "supplied": {"uri": "pvc://weights/mine.jsonl", "share": 0.5},
    },
    "evaluation": {
        "winRate": {"judges": ["Endpoint"], "endpoint": {**SERVER, "url": "http://vllm.models.svc:8000/v1"}}
    },
    "judging": {"judges": [{"name": "self", "judge": "Live"}, OUTSIDE]},
    "rewards": [
        REWARD,
        {"name": "short", "type": "Length", "max": 9},
        {"name": "own", "type": "Python", "entryPoint": "own"},
    ],
    "notify": [{"url": "https://api.example.com/hook", "secretRef": {"name": "hub", "key": "hook"}}],
    "export": {"publish": [{"s3": BUCKET}, {"oci": REGISTRY}]},
    "storage": {"existingClaim": "weights"},
    "scheduling": {"priorityClassName": "batch"},
    "stages": {
        "train": {
            "nodeSelector": {"gpu": "h100", "topology.kubernetes.io/zone": "a"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "batch",
            "runtimeClassName": "nvidia",
            "podLabels": {"team": "align"},
            "podAnnotations": {"example.com/note": "x"},
            "volumes": [
                {"name": "w", "mountPath": "/mnt/w", "persistentVolumeClaim": {"claimName": "weights"}},
                {"name": "s", "mountPath": "/mnt/s", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
            "env": [
                {"name": "NCCL_DEBUG", "value": "WARN"},
                {"name": "NCCL_KEY", "valueFrom": {"secretKeyRef": {"name": "dynalign-nccl", "key": "k"}}},
            ],
        }
    },
}
"""Names something of each kind, all of it allowed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("admission") / "s") as started:
        for namespace in (TEAM, "elsewhere"):
            assert started.kubectl("create", "namespace", namespace).returncode == 0
        selector = {"matchLabels": {"kubernetes.io/metadata.name": TEAM}}
        approvals = {"admissionPolicy": {"enabled": False}}
        values = {"admissionPolicy": {"enabled": True, "namespaceSelector": selector, **ALLOWED}}
        objects = render({**values, "approvals": approvals})
        policies = of_kind(objects, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        assert len(policies) == 2
        applied = started.apply(*policies)
        assert applied.returncode == 0, applied.stderr
        end = time.monotonic() + PATIENCE
        while not refusal(started, changed({"scheduling": {"priorityClassName": "system-node-critical"}})):
            assert time.monotonic() < end, "the policy does not come into force"
            time.sleep(0.2)  # between two looks at it
        yield started


def changed(change: dict[str, Any]) -> dict[str, Any]:
    """The good run with one thing changed."""
    spec = copy.deepcopy(GOOD)

    def merge(into: dict[str, Any], what: dict[str, Any]) -> None:
        for name, value in what.items():
            if isinstance(value, dict) and isinstance(into.get(name), dict):
                merge(into[name], value)
            else:
                into[name] = value

    merge(spec, change)
    return spec


def refusal(server: ApiServer, spec: dict[str, Any], namespace: str = TEAM) -> str:
    """What the API server says against a run; empty when it takes it."""
    run = yaml.safe_dump(run_object("r", namespace, **spec))
    told = server.kubectl("create", "--dry-run=server", "-f", "-", text=run)
    return "" if told.returncode == 0 else told.stderr


def test_types_are_checked(server: ApiServer) -> None:
    """The API server reads the expressions against the CRD, and warns of what can never hold."""
    found = server.kubectl("get", "validatingadmissionpolicies", "-o", "jsonpath={.items[*].status.typeChecking}")
    assert "expressionWarnings" not in found.stdout, found.stdout


def test_a_run_that_names_what_is_allowed_is_taken(server: ApiServer) -> None:
    assert refusal(server, GOOD) == ""
    assert refusal(server, {"model": {"uri": "bundled://smollm2-135m-instruct"}}) == ""


STAGE = "stages"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "hub token": ({"model": {"tokenSecretRef": {"name": "db-root"}}}, "the Secret db-root"),
    "key of an agent": (
        {"prompts": {"agents": {"author": {"endpoint": {"apiKeySecretRef": {"name": "db-root"}}}}}},
        "the Secret db-root",
    ),
    "key of the judge": (
        {"evaluation": {"winRate": {"endpoint": {"apiKeySecretRef": {"name": "db-root"}}}}},
        "the Secret db-root",
    ),
    "secret of a variable": (
        {STAGE: {"train": {"env": [{"name": "NCCL_X", "valueFrom": {"secretKeyRef": {"name": "db", "key": "k"}}}]}}},
        "the Secret db may",
    ),
    "host of an agent": (
        {"prompts": {"agents": {"author": {"endpoint": {"url": "https://10.9.8.7/latest"}}}}},
        "the host 10.9.8.7",
    ),
    "host of the judge": (
        {"evaluation": {"winRate": {"endpoint": {"url": "https://evil.example.com/v1"}}}},
        "the host evil.example.com",
    ),
    "key of one of several judges": (
        {
            "judging": {
                "judges": [{**OUTSIDE, "endpoint": {**SERVER, "apiKeySecretRef": {"name": "db-root", "key": "k"}}}]
            }
        },
        "the Secret db-root",
    ),
    "host of one of several judges": (
        {"judging": {"judges": [{**OUTSIDE, "endpoint": {**SERVER, "url": "https://evil.example.com/v1"}}]}},
        "the host evil.example.com",
    ),
    "key of a reward": (
        {
            "rewards": [
                {**REWARD, "endpoint": {**REWARD["endpoint"], "apiKeySecretRef": {"name": "db-root", "key": "k"}}}
            ]
        },
        "the Secret db-root",
    ),
    "host of a reward": (
        {"rewards": [{**REWARD, "endpoint": {"url": "https://evil.example.com/score"}}]},
        "the host evil.example.com",
    ),
    "key of a webhook": (
        {"notify": [{"url": "https://api.example.com/hook", "secretRef": {"name": "db-root", "key": "k"}}]},
        "the Secret db-root",
    ),
    "host of a webhook": (
        {"notify": [{"url": "https://evil.example.org/hook", "secretRef": {"name": "hub", "key": "k"}}]},
        "the host evil.example.org",
    ),
    "host that ends alike": (
        {"evaluation": {"winRate": {"endpoint": {"url": "https://api.example.com.evil.org/v1"}}}},
        "the host api.example.com.evil.org",
    ),
    "claim of a volume": (
        {
            STAGE: {
                "judge": {
                    "volumes": [{"name": "v", "mountPath": "/mnt/v", "persistentVolumeClaim": {"claimName": "payroll"}}]
                }
            }
        },
        "the claim payroll",
    ),
    "key of a bucket to publish to": (
        {"export": {"publish": [{"s3": {**BUCKET, "credentialsSecretRef": {"name": "db-root"}}}]}},
        "the Secret db-root",
    ),
    "bucket of another server": (
        {"export": {"publish": [{"s3": BUCKET}, {"s3": {**BUCKET, "endpoint": "https://evil.example.com"}}]}},
        "the host evil.example.com",
    ),
    "bucket at AWS": (
        {"export": {"publish": [{"s3": {"bucket": "models", "prefix": "mine"}}]}},
        "the host s3.amazonaws.com",
    ),
    "key of the model's bucket": (
        {"model": {"uri": "s3://models/x", "tokenSecretRef": None, "credentialsSecretRef": {"name": "db-root"}}},
        "the Secret db-root",
    ),
    "server of the model's bucket": (
        {"model": {"uri": "s3://models/x", "tokenSecretRef": None, "s3": {"endpoint": "https://evil.example.com"}}},
        "the host evil.example.com",
    ),
    "the hub": (
        {"export": {"publish": [{"hub": {"repository": "a/b", "tokenSecretRef": {"name": "hub", "key": "t"}}}]}},
        "the host huggingface.co",
    ),
    "token of the hub to publish to": (
        {"export": {"publish": [{"hub": {"repository": "a/b", "tokenSecretRef": {"name": "db-root", "key": "t"}}}]}},
        "the Secret db-root",
    ),
    "another registry": (
        {"export": {"publish": [{"oci": {**REGISTRY, "registry": "evil.example.com:5000"}}]}},
        "the host evil.example.com",
    ),
    "key of a registry": (
        {"export": {"publish": [{"oci": {**REGISTRY, "credentialsSecretRef": {"name": "db-root"}}}]}},
        "the Secret db-root",
    ),
    "registry of the model": (
        {"model": {"uri": "oci://evil.example.com:5000/models/x:v1", "tokenSecretRef": None}},
        "the host evil.example.com",
    ),
    "model's bucket at AWS": ({"model": {"uri": "s3://models/x", "tokenSecretRef": None}}, "the host s3.amazonaws.com"),
    "claim of the run": ({"storage": {"existingClaim": "payroll"}}, "the claim payroll"),
    "claim of the model": (
        {"model": {"uri": "pvc://payroll/x", "tokenSecretRef": None}},
        "the claim payroll",
    ),
    "claim of the prompts": ({"prompts": {"supplied": {"uri": "pvc://payroll/x.jsonl"}}}, "the claim payroll"),
    "claim of the texts": ({"prompts": {"decontamination": {"uri": "pvc://payroll/x.jsonl"}}}, "the claim payroll"),
    "priority of the run": ({"scheduling": {"priorityClassName": "system-node-critical"}}, "system-node-critical"),
    "priority of a stage": ({STAGE: {"judge": {"priorityClassName": "urgent"}}}, "the priority class urgent"),
    "runtime": ({STAGE: {"judge": {"runtimeClassName": "runc-privileged"}}}, "the runtime class runc-privileged"),
    "annotation": (
        {STAGE: {"fetch": {"podAnnotations": {"iam.amazonaws.com/role": "admin"}}}},
        "the annotation iam.amazonaws.com/role",
    ),
    "label": ({STAGE: {"fetch": {"podLabels": {"network": "trusted"}}}}, "the label network"),
    "toleration": (
        {STAGE: {"export": {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]}}},
        "the tolerated taint node-role.kubernetes.io/control-plane",
    ),
    "toleration of everything": (
        {STAGE: {"evaluate": {"tolerations": [{"operator": "Exists"}]}}},
        "the tolerated taint (every taint)",
    ),
    "node": (
        {STAGE: {"prompts": {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}}},
        "the node label node-role.kubernetes.io/control-plane",
    ),
    "variable": (
        {STAGE: {"generate": {"env": [{"name": "HTTPS_PROXY", "value": "http://evil:1"}]}}},
        "the environment variable HTTPS_PROXY",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_allowed_is_refused_by_its_name(server: ApiServer, case: str) -> None:
    change, sentence = REFUSED[case]
    said = refusal(server, changed(change))
    assert sentence in said, said
    assert refusal(server, changed(change), "elsewhere") == "", "this namespace is not selected"


def test_a_run_that_was_there_before_can_still_be_labelled_and_deleted(server: ApiServer) -> None:
    run = run_object("old", "elsewhere", **changed({"scheduling": {"priorityClassName": "urgent"}}))
    assert server.apply(run).returncode == 0
    labels = '{"kubernetes.io/metadata.name":"elsewhere"}'
    selector = f'{{"spec":{{"matchResources":{{"namespaceSelector":{{"matchLabels":{labels}}}}}}}}}'
    binding = "validatingadmissionpolicybinding"
    name = server.kubectl("get", binding, "-o", "jsonpath={.items[0].metadata.name}").stdout
    before = server.kubectl("get", binding, name, "-o", "yaml").stdout
    assert server.kubectl("patch", binding, name, "--type=merge", "-p", selector).returncode == 0
    try:
        end = time.monotonic() + PATIENCE
        while not refusal(server, changed({"scheduling": {"priorityClassName": "urgent"}}), "elsewhere"):
            assert time.monotonic() < end, "the binding does not come into force"
            time.sleep(0.2)  # between two looks at it
        assert server.kubectl("label", "ar", "old", "-n", "elsewhere", "a=b").returncode == 0
        changing = server.kubectl(
            "patch", "ar", "old", "-n", "elsewhere", "--type=merge", "-p", '{"spec":{"suspend":true}}'
        )
        assert "the priority class urgent" in changing.stderr
        assert server.kubectl("delete", "ar", "old", "-n", "elsewhere").returncode == 0
    finally:
        server.kubectl("replace", "-f", "-", text=before)
