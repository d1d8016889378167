"""The chart as helm renders it."""

import json
from typing import Any

import pytest
import yaml

from dynalign_operator.api.pods import StageOverrides, StagesSpec
from dynalign_operator.manifests.build_settings import CaBundle, PodSettings
from dynalign_operator.service.settings import OperatorSettings, read_settings
from support.chart import CHART, NAMESPACE, ROOT, Objects, of_kind, only, render, run_helm

pytestmark = pytest.mark.cluster

OPERATOR, READY_TEST = "dynalign", "dynalign-test-ready"
EVERYTHING = {
    "namespaces": ["ml", "research"],
    "progress": "ApiProxy",
    "imagePullSecrets": [{"name": "own"}],
    "trainer": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    "serviceAccount": {"annotations": {"example.com/role": "x"}},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "priorityClassName": "high",
    "podLabels": {"team": "align", "app.kubernetes.io/name": "other"},
    "podAnnotations": {"note": "x"},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True, "labels": {"folder": "models"}},
    },
}


def pod_spec(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment(objects: Objects) -> dict[str, str]:
    (container,) = pod_spec(objects)["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def settings_of(objects: Objects) -> OperatorSettings:
    """What the operator makes of its environment."""
    return read_settings(environment(objects))


def policy_of(objects: Objects, name: str) -> dict[str, Any]:
    """The specification of the NetworkPolicy of this name."""
    (found,) = [policy for policy in of_kind(objects, "NetworkPolicy") if policy["metadata"]["name"] == name]
    spec: dict[str, Any] = found["spec"]
    return spec


def verbs(role: dict[str, Any]) -> dict[str, list[str]]:
    return {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_lint(values: dict[str, Any]) -> None:
    result = run_helm(["lint", "--strict", str(CHART)], values)
    assert result.returncode == 0, result.stdout


def test_an_unknown_value_is_refused_by_name() -> None:
    result = run_helm(["template", "dynalign", str(CHART)], {"progess": "PodIP"})
    assert result.returncode != 0
    assert "progess" in result.stderr


def operators_role(objects: Objects) -> dict[str, Any]:
    """The ClusterRole that the operator is bound to; the other one is for people who approve runs."""
    bound = only(objects, "ClusterRoleBinding")["roleRef"]["name"]
    (role,) = (role for role in of_kind(objects, "ClusterRole") if role["metadata"]["name"] == bound)
    return role


def test_who_approves_has_a_role_of_their_own() -> None:
    objects = render()
    approver = next(r for r in of_kind(objects, "ClusterRole") if r["metadata"]["name"].endswith("-approver"))
    assert "approve" in verbs(approver)["alignmentruns"]
    assert approver["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"] == "true"
    assert "approve" not in verbs(operators_role(objects))["alignmentruns"]
    alone = render({"approvals": {"clusterRole": {"create": False}, "admissionPolicy": {"enabled": False}}})
    assert len(of_kind(alone, "ClusterRole")) == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_the_operator_knows_whether_names_in_approvals_are_checked(enabled: bool) -> None:
    objects = render({"approvals": {"admissionPolicy": {"enabled": enabled}}})
    assert settings_of(objects).build.are_approvals_verified is enabled
    assert bool(of_kind(objects, "ValidatingAdmissionPolicy")) is enabled


def test_the_operator_reads_the_listed_secrets_alone_and_only_with_notifications() -> None:
    assert "secrets" not in verbs(operators_role(render({"notifications": {"secrets": ["hooks"]}})))
    assert "secrets" not in verbs(operators_role(render({"notifications": {"enabled": True}})))
    objects = render({"notifications": {"enabled": True, "secrets": ["hooks"]}})
    (rule,) = (rule for rule in operators_role(objects)["rules"] if "secrets" in rule["resources"])
    assert (rule["verbs"], rule["resourceNames"]) == (["get"], ["hooks"])
    assert settings_of(objects).build.sends_notifications
    assert not settings_of(render()).build.sends_notifications


def test_the_network_policy_opens_the_ports_of_webhooks_with_notifications_alone() -> None:
    def ports(**notifications: object) -> set[int]:
        rules = policy_of(render({"notifications": notifications}), OPERATOR)["egress"]
        return {port["port"] for rule in rules for port in rule["ports"] if "ipBlock" in str(rule.get("to"))}

    assert ports(ports=[8443]) == set()
    assert ports(enabled=True, ports=[8443]) == {8443}


def test_traces_are_off_and_take_the_standard_variables() -> None:
    assert not settings_of(render()).exports_traces
    objects = render(
        {"traces": {"enabled": True, "endpoint": "http://c.o.svc:4318", "env": [{"name": "OTEL_X", "value": "1"}]}}
    )
    assert (environment(objects)["OTEL_EXPORTER_OTLP_ENDPOINT"], environment(objects)["OTEL_X"]) == (
        "http://c.o.svc:4318",
        "1",
    )
    found = settings_of(objects)
    assert found.exports_traces
    assert found.build.are_stages_traced
    ports = [port["port"] for rule in policy_of(objects, OPERATOR)["egress"] for port in rule["ports"]]
    assert 4318 in ports


def test_cluster_wide() -> None:
    objects = render()
    assert not of_kind(objects, "Role")
    assert not of_kind(objects, "RoleBinding")
    role, binding = operators_role(objects), only(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert verbs(role)["customresourcedefinitions"] == ["list", "watch"]
    assert "pods/proxy" not in verbs(role)
    assert environment(objects)["DYNALIGN_NAMESPACES"] == ""


def test_namespaced() -> None:
    objects = render(EVERYTHING)
    assert [role["metadata"]["name"] for role in of_kind(objects, "ClusterRole")] == [f"{NAMESPACE}-dynalign-approver"]
    assert not of_kind(objects, "ClusterRoleBinding")
    assert [role["metadata"]["namespace"] for role in of_kind(objects, "Role")] == ["ml", "research"]
    for role in of_kind(objects, "Role"):
        assert verbs(role)["pods/proxy"] == ["get"]
        assert not {"customresourcedefinitions", "secrets"} & set(verbs(role))
    account = only(objects, "ServiceAccount")["metadata"]["name"]
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
    assert environment(objects)["DYNALIGN_NAMESPACES"] == "ml,research"


def test_the_crd_is_kept_and_otherwise_the_generated_one() -> None:
    crd = only(render(), "CustomResourceDefinition")
    generated = yaml.safe_load((ROOT / "crds" / "dynalign.io_alignmentruns.yaml").read_text())
    metadata = crd.pop("metadata")
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert metadata["name"] == generated.pop("metadata")["name"]
    assert crd == generated


def test_what_can_be_switched_off() -> None:
    values = {
        "crds": {"install": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False},
        "metrics": {"dashboard": {"enabled": False}},
        "networkPolicy": {"enabled": False},
        "approvals": {"clusterRole": {"create": False}, "admissionPolicy": {"enabled": False}},
    }
    objects = render(values)
    assert sorted(thing["kind"] for thing in objects) == ["Deployment", "Pod", "Service"]
    assert pod_spec(objects)["serviceAccountName"] == "default"


def test_every_pod_satisfies_restricted_pod_security() -> None:
    objects = render(EVERYTHING)
    for spec in (pod_spec(objects), only(objects, "Pod")["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_one_operator_at_a_time_and_its_probes() -> None:
    deployment = only(render(), "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    spec = deployment["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 45
    (container,) = spec["containers"]
    assert container["command"] == ["python", "-m", "dynalign_operator"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["livenessProbe"]["timeoutSeconds"] == 5
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_everything_reaches_the_pod() -> None:
    objects = render(EVERYTHING)
    spec, template = pod_spec(objects), only(objects, "Deployment")["spec"]["template"]
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert spec[name] == EVERYTHING[name]
    assert template["metadata"]["annotations"] == {"note": "x"}
    assert template["metadata"]["labels"]["team"] == "align"
    assert environment(objects)["DYNALIGN_IMAGE_PULL_SECRETS"] == "a,b"
    assert environment(objects)["DYNALIGN_PROGRESS"] == "ApiProxy"


def test_the_service_selects_the_operator_and_nothing_else() -> None:
    objects = render(EVERYTHING)
    selector = only(objects, "Service")["spec"]["selector"]
    assert selector == only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert not selector.items() <= only(objects, "Pod")["metadata"]["labels"].items()


def test_off_without_quotes_means_off() -> None:
    assert environment(render({"progress": False}))["DYNALIGN_PROGRESS"] == "Off"


def test_a_digest_wins_over_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    image = {"repository": "registry:5000/operator", "tag": "1", "digest": digest}
    (container,) = pod_spec(render({"image": image}))["containers"]
    assert container["image"] == f"registry:5000/operator@{digest}"


def test_monitors() -> None:
    assert not [thing for thing in render() if thing["kind"].endswith("Monitor")]
    objects = render(EVERYTHING)
    assert only(objects, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert only(objects, "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["ml", "research"]}
    everywhere = render({"metrics": {"podMonitor": {"enabled": True}}})
    assert only(everywhere, "PodMonitor")["spec"]["namespaceSelector"] == {"any": True}


def test_resources_of_other_projects_are_off_by_default() -> None:
    groups = {thing["apiVersion"].partition("/")[0] for thing in render()}
    of_kubernetes = {"rbac.authorization", "networking", "apiextensions", "admissionregistration"}
    assert groups == {"v1", "apps", *(f"{group}.k8s.io" for group in of_kubernetes)}


def test_the_dashboard_is_found_by_its_label_and_is_json() -> None:
    dashboard = only(render(EVERYTHING), "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["labels"]["folder"] == "models"
    assert json.loads(dashboard["data"]["dynalign.json"])["uid"] == "dynalign"


def test_the_network_policy_lets_in_the_ports_and_out_what_is_needed() -> None:
    objects = render({"networkPolicy": {"apiServerPorts": [16443]}})
    policy, (container,) = policy_of(objects, OPERATOR), pod_spec(objects)["containers"]
    assert policy["podSelector"]["matchLabels"] == only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    (ingress,) = policy["ingress"]
    assert {port["port"] for port in ingress["ports"]} == {port["name"] for port in container["ports"]}
    dns, api_server, stages = policy["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert api_server == {"ports": [{"port": 16443, "protocol": "TCP"}]}
    assert stages["to"][0]["namespaceSelector"] == {}


def test_the_network_policy_lets_out_to_the_stages_of_its_namespaces_only_when_pods_are_asked() -> None:
    namespaces = ["ml", "research"]
    policy = policy_of(render({"namespaces": namespaces}), OPERATOR)
    (expression,) = policy["egress"][2]["to"][0]["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    assert len(policy_of(render(EVERYTHING), OPERATOR)["egress"]) == 2


def test_the_network_policy_is_as_narrow_as_values_say() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    values = {"networkPolicy": {"from": [peer], "apiServerCidrs": ["10.0.0.0/28"], "dnsPorts": [5353]}}
    policy = policy_of(render(values), OPERATOR)
    scrape, ready_test = policy["ingress"]
    assert scrape["from"] == [peer]
    assert selects(ready_test["from"][0], only(render(values), "Pod")["metadata"])
    dns, api_server, _ = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {5353}
    assert api_server["to"] == [{"ipBlock": {"cidr": "10.0.0.0/28"}}]


def selects(peer: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Whether a peer of a policy's own namespace is a pod with this metadata."""
    return "namespaceSelector" not in peer and peer["podSelector"]["matchLabels"].items() <= metadata["labels"].items()


def test_the_ready_test_gets_through_where_everything_else_is_denied() -> None:
    objects = render({"networkPolicy": {"dnsPorts": [5353]}})
    policy = policy_of(objects, READY_TEST)
    assert selects(policy, only(objects, "Pod")["metadata"])
    dns, operator = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {5353}
    template, (container,) = only(objects, "Deployment")["spec"]["template"], pod_spec(objects)["containers"]
    assert selects(operator["to"][0], template["metadata"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [port["port"] for port in operator["ports"]] == [ports["probes"]]


def test_no_pod_has_an_identity_where_the_cluster_gives_one() -> None:
    objects = render({"podSecurity": None, "trainer": {"podSecurity": None}})
    for spec in (pod_spec(objects), only(objects, "Pod")["spec"]):
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert settings_of(objects).build.pods.pod_security is None


def test_what_the_values_say_of_the_stages_reaches_the_operator() -> None:
    defaults = settings_of(render()).build.pods
    closed = PodSettings(network_policy=defaults.network_policy, allowed_images=(), allowed_service_accounts=())
    assert defaults == closed
    assert defaults.network_policy.enabled
    values = {
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        "podDefaults": {"stages": {"train": {"resources": {"requests": {"cpu": 8}}}}},
        "proxy": {"https": "http://proxy:3128", "noProxy": [".lan"]},
        "caBundle": {"configMap": "site-trust"},
        "hubEndpoint": "https://hub.lan",
        "allowedImages": ["registry.lan/*"],
        "allowedServiceAccounts": ["trainer"],
        "scratch": {"tmp": "1Gi"},
        "shareCompiled": False,
    }
    pods = settings_of(render({"trainer": values})).build.pods
    assert pods.env[0].name == "NCCL_DEBUG"
    assert pods.pod_defaults.stages.train.resources.requests == {"cpu": "8"}
    assert (pods.proxy.http, pods.proxy.https, pods.proxy.no_proxy) == (None, "http://proxy:3128", (".lan",))
    assert pods.ca_bundle == CaBundle(config_map="site-trust")
    assert (pods.allowed_images, pods.allowed_service_accounts) == (("registry.lan/*",), ("trainer",))
    assert (pods.hub_endpoint, pods.scratch.tmp, pods.share_compiled) == ("https://hub.lan", "1Gi", False)


def test_the_chart_s_schema_has_every_field_of_the_stages_pods() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    pods = schema["properties"]["trainer"]["properties"]["podDefaults"]["properties"]
    fields = {field.alias for field in StageOverrides.model_fields.values()}
    assert pods.keys() == fields | {"stages"}
    assert schema["definitions"]["stage"]["properties"].keys() == fields
    assert pods["stages"]["properties"].keys() == {field.alias for field in StagesSpec.model_fields.values()}


def test_stages_are_scraped_by_the_operator_that_the_chart_installs() -> None:
    objects = render()
    policy = settings_of(objects).build.pods.network_policy
    assert policy.operator is not None
    assert policy.operator.namespace == NAMESPACE
    assert (
        policy.operator.labels.items() <= only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )


@pytest.mark.parametrize(
    ("values", "everybody"),
    [
        ({}, False),
        ({"progress": "ApiProxy"}, True),
        ({"metrics": {"podMonitor": {"enabled": True}}}, True),
        (
            {
                "metrics": {"podMonitor": {"enabled": True}},
                "trainer": {"networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]}},
            },
            False,
        ),
    ],
)
def test_who_may_scrape_stages(values: dict[str, Any], everybody: bool) -> None:
    assert (settings_of(render(values)).build.pods.network_policy.operator is None) is everybody


def test_the_right_to_make_network_policies_is_granted_where_they_are_made() -> None:
    assert verbs(operators_role(render()))["networkpolicies"] == ["get", "create"]
    none = render({"trainer": {"networkPolicy": {"enabled": False}}})
    assert "networkpolicies" not in verbs(operators_role(none))
    assert settings_of(none).build.pods.network_policy.enabled is False


def test_the_ready_test_is_python_that_compiles() -> None:
    pod = only(render(release="another"), "Pod")
    (container,) = pod["spec"]["containers"]
    compile(container["args"][0], "ready", "exec")
    assert "http://another-dynalign.dynalign-system:8080/readyz" in container["args"][0]


@pytest.mark.parametrize("release", ["a", "dynalign", "x" * 53])
def test_names_are_not_too_long(release: str) -> None:
    names = {thing["kind"]: thing["metadata"]["name"] for thing in render(EVERYTHING, release=release)}
    assert all(len(names[kind]) <= 63 for kind in ("Deployment", "Pod", "Service", "ServiceAccount", "ConfigMap"))
