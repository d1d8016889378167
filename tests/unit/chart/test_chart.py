"""The chart's files agree with each other and with what they are copied from or made for. test_rendering.py needs helm."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_operator.clusters.kubernetes.progress_source import ProgressSource
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.labels import run_labels
from dynalign_operator.service.settings import read_settings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "dynalign"
CRD = "dynalign.io_alignmentruns.yaml"

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
RBAC = yaml.safe_load((CHART / "files" / "rbac.yaml").read_text())


class Recorder(dict[str, str]):
    """An empty environment that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return default


def template(name: str) -> str:
    return (CHART / "templates" / name).read_text()


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the values that a user sets; an empty mapping and a list are values."""
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in ("resources", "podSecurity", "scratch"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that lists properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)


def accepts(**changes: Any) -> bool:
    try:
        jsonschema.validate({**VALUES, **changes}, SCHEMA)
    except jsonschema.ValidationError:
        return False
    return True


def test_the_crd_is_the_generated_one() -> None:
    copied, generated = CHART / "files" / CRD, ROOT / "crds" / CRD
    assert copied.read_bytes() == generated.read_bytes(), f"run: cp {generated} {copied}"


def test_the_crd_has_the_one_line_that_the_template_extends() -> None:
    assert (CHART / "files" / CRD).read_text().count("\nmetadata:\n") == 1


def test_the_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
    assert f"{VALUES['trainer']['image']['repository']}:{chart['appVersion']}" == BuildSettings().trainer_image


def test_the_schema_is_valid_and_accepts_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_the_schema_refuses_unknown_names_everywhere() -> None:
    assert [part for part in objects(SCHEMA) if part.get("additionalProperties") is not False] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"progess": "PodIP"},
        {"progress": "podip"},
        {"logLevel": "TRACE"},
        {"namespaces": "ml"},
        {"namespaces": ["Not_A_Name"]},
        {"namespaces": ["ml", "ml"]},
        {"imagePullSecrets": ["registry"]},
        {"image": {"repository": "x", "pullPolicy": "Sometimes"}},
        {"image": {"repository": "x", "pullPolicy": "Never", "digest": "sha256:abc"}},
        {"nodeSelector": {"gpu": True}},
        {"tolerations": [{"key": "gpu", "op": "Exists"}]},
        {"resources": {"request": {}}},
        {"rbac": {"create": "yes"}},
        {"metrics": {"serviceMonitor": {"enabled": False}}},
        {"metrics": {**VALUES["metrics"], "prometheusRule": {"enabled": True, "interval": "1m"}}},
        {"metrics": {**VALUES["metrics"], "dashboard": {}}},
        {"networkPolicy": {"enabled": True}},
        {"networkPolicy": {"enabled": True, "apiServerPorts": []}},
        {"networkPolicy": {"enabled": True, "apiServerPorts": ["https"]}},
        {"networkPolicy": {"enabled": True, "apiServerPorts": [70000]}},
        {"networkPolicy": {**VALUES["networkPolicy"], "apiServerCidrs": ["10.0.0.1"]}},
        {"podSecurity": {"runAsUser": 0}},
        {"trainer": {**VALUES["trainer"], "podSecurity": "none"}},
        {"trainer": {**VALUES["trainer"], "proxy": {"http": "proxy:3128"}}},
        {"trainer": {**VALUES["trainer"], "env": [{"name": "A B", "value": "1"}]}},
        {"trainer": {**VALUES["trainer"], "env": [{"name": "A", "value": 1}]}},
        {"trainer": {**VALUES["trainer"], "podDefaults": {"stages": {"sleep": {}}}}},
    ],
)
def test_the_schema_refuses(changes: dict[str, Any]) -> None:
    assert not accepts(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"progress": str(source)} for source in ProgressSource),
        {"progress": False},
        {"namespaces": ["ml", "research-2"]},
        {"imagePullSecrets": [{"name": "registry.example"}]},
        {"resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}}},
        {"affinity": {"nodeAffinity": {}}},
        {"tolerations": [{"operator": "Exists"}]},
        {"global": {"anything": 1}},
        {"metrics": {**VALUES["metrics"], "prometheusRule": {"enabled": True, "labels": {"release": "x"}}}},
        {"networkPolicy": {"enabled": False, "apiServerPorts": [16443]}},
        {"podSecurity": None},
        {"trainer": {**VALUES["trainer"], "podSecurity": None}},
        {"trainer": {**VALUES["trainer"], "podDefaults": {"stages": {"train": {"runtimeClassName": "nvidia"}}}}},
        {"image": {"repository": "registry:5000/a/b", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"}},
    ],
)
def test_the_schema_accepts(changes: dict[str, Any]) -> None:
    assert accepts(**changes)


def test_every_value_has_a_default_and_a_schema() -> None:
    assert set(VALUES) == set(SCHEMA["properties"]) - {"global"}


def test_the_readme_lists_every_value_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `([a-zA-Z.]+)` \| `(.*?)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    assert {name: yaml.safe_load(default) for name, default in listed.items()} == dict(leaves(VALUES))


def test_every_value_is_read_by_a_template() -> None:
    text = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    known = {f".Values.{name}" for name, _ in leaves(VALUES)}
    whole = {".Values.image", ".Values.trainer.image"}  # handed to a template that reads the parts
    parts = {
        *(f".Values.metrics.{part}" for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")),
        ".Values.networkPolicy",
        ".Values.admissionPolicy",
        ".Values.approvals",
        ".Values.notifications",
        ".Values.traces",
    }
    read = set(re.findall(r"\.Values(?:\.\w+)+", text))
    prefixes = whole | parts
    assert {name for name in known - read if not name.startswith(tuple(prefixes))} == set()
    assert read - known - prefixes == set()


def test_the_deployment_sets_what_the_operator_reads() -> None:
    environment = Recorder()
    settings = read_settings(environment)
    text = template("deployment.yaml")
    assert set(re.findall(r"- name: (DYNALIGN_\w+)", text)) == environment.asked
    ports = dict(re.findall(r"\{name: (\w+), containerPort: (\d+)\}", text))
    assert ports == {"metrics": str(settings.metrics_port), "probes": str(settings.probe_port)}
    assert VALUES["progress"] == settings.progress
    assert VALUES["logLevel"] == settings.log_level
    assert tuple(VALUES["namespaces"]) == settings.namespaces


def test_the_pod_monitor_selects_what_the_operator_makes() -> None:
    text = template("podmonitor.yaml")
    assert f"app.kubernetes.io/managed-by: {run_labels('x')['app.kubernetes.io/managed-by']}\n" in text
    assert f"Port {METRICS_PORT} of" in text


def test_the_operator_may_do_this_and_no_more() -> None:
    granted = {
        part: {
            f"{group or 'core'}/{resource}": " ".join(rule["verbs"])
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        for part, rules in RBAC.items()
    }
    assert granted == {
        "namespaced": {
            "dynalign.io/alignmentruns": "list watch",
            "dynalign.io/alignmentruns/status": "patch",
            "batch/jobs": "get list watch create delete",
            "core/pods": "list watch",
            "core/configmaps": "get create patch",
            "core/persistentvolumeclaims": "get create",
            "core/services": "get create",
            "core/events": "create",
        },
        "networkPolicies": {"networking.k8s.io/networkpolicies": "get create"},
        "apiProxy": {"core/pods/proxy": "get"},
        "notifications": {"core/secrets": "get"},
        "approvers": {"dynalign.io/alignmentruns": "get list watch patch approve"},
        "clusterWide": {
            "apiextensions.k8s.io/customresourcedefinitions": "list watch",
        },
    }


def test_no_rule_is_written_in_a_template() -> None:
    texts = [path.read_text() for path in sorted((CHART / "templates").rglob("*.*"))]
    assert not [text for text in texts if "verbs:" in text or "apiGroups:" in text]
