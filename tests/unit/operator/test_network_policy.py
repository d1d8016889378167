"""Who may reach a stage's pods and whom they may reach, as a network that enforces policies would decide."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.rehearsal import rehearse
from support.builders import T0, RunBuilder, a_run
from support.stage_bundles import first_bundles

OPERATOR = {"namespace": "dynalign-system", "labels": {"app.kubernetes.io/name": "dynalign"}}
METADATA = "169.254.169.254"
HUB = "18.164.174.23"


def bundles(run: RunBuilder, **pods: Any) -> dict[Stage, JobBundle]:
    pods.setdefault("networkPolicy", {"enabled": True, "operator": OPERATOR})
    settings = BuildSettings(pods=PodSettings.model_validate(pods))
    return first_bundles(run.stored(), lambda given: rehearse(given, {}, T0, settings))


def spec_of(bundle: JobBundle) -> dict[str, Any]:
    assert bundle.network_policy is not None
    spec: dict[str, Any] = bundle.network_policy["spec"]
    return spec


def reaches(bundle: JobBundle, host: str, port: int) -> bool:
    """Whether a pod of the stage may open a connection to an address outside the cluster."""

    def holds(block: dict[str, Any]) -> bool:
        inside = ip_address(host) in ip_network(block["cidr"])
        return inside and not any(ip_address(host) in ip_network(other) for other in block.get("except", ()))

    return any(
        ("ports" not in rule or port in {entry["port"] for entry in rule["ports"]})
        and ("to" not in rule or any(holds(peer["ipBlock"]) for peer in rule["to"] if "ipBlock" in peer))
        for rule in spec_of(bundle)["egress"]
    )


def namespaces(bundle: JobBundle) -> set[str]:
    """Namespaces to whose pods the stage may open connections at every port."""
    return {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in spec_of(bundle)["egress"]
        if "ports" not in rule
        for peer in rule["to"]
        if "namespaceSelector" in peer
    }


def endpoint(url: str) -> dict[str, Any]:
    return {"model": "Endpoint", "endpoint": {"url": url, "model": "big"}}


@pytest.mark.parametrize("stage", Stage)
def test_a_policy_selects_the_pods_of_its_stage_and_belongs_to_the_run(stage: Stage) -> None:
    bundle = bundles(a_run())[stage]
    assert bundle.network_policy is not None
    labels = bundle.job["spec"]["template"]["metadata"]["labels"]
    assert spec_of(bundle)["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec_of(bundle)["policyTypes"] == ["Ingress", "Egress"]
    assert bundle.network_policy["metadata"]["ownerReferences"] == bundle.job["metadata"]["ownerReferences"]
    assert len(bundle.network_policy["metadata"]["name"]) <= 63


@pytest.mark.parametrize("stage", Stage)
def test_the_operator_alone_scrapes(stage: Stage) -> None:
    (scrape,) = spec_of(bundles(a_run())[stage])["ingress"]
    assert scrape["ports"] == [{"port": 9464, "protocol": "TCP"}]
    assert scrape["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dynalign-system"}},
            "podSelector": {"matchLabels": OPERATOR["labels"]},
        }
    ]
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    more = bundles(a_run(), networkPolicy={"enabled": True, "operator": OPERATOR, "metricsFrom": [peer]})[stage]
    assert peer in spec_of(more)["ingress"][0]["from"]
    everybody = bundles(a_run(), networkPolicy={"enabled": True})[stage]
    assert "from" not in spec_of(everybody)["ingress"][0], "the API server asks for the operator"


@pytest.mark.parametrize("stage", Stage)
def test_nothing_goes_out_but_dns_where_nothing_is_asked(stage: Stage) -> None:
    bundle = bundles(a_run())[stage]  # bundled model, no endpoints
    assert reaches(bundle, HUB, 53) is (stage not in SIDE_STAGES), "a report asks nobody"
    assert not any(reaches(bundle, HUB, port) for port in (80, 443, 8000, 9464, 29400))
    assert namespaces(bundle) == set()


@pytest.mark.parametrize("stage", Stage)
def test_a_hub_is_reached_by_fetch_alone(stage: Stage) -> None:
    bundle = bundles(a_run().with_spec(model={"uri": "hf://org/name"}))[stage]
    assert reaches(bundle, HUB, 443) is (stage is Stage.FETCH)
    assert not reaches(bundle, METADATA, 443)


@pytest.mark.parametrize(
    ("server", "host", "port"),
    [
        ({}, "52.92.16.1", 443),
        ({"endpoint": "http://203.0.113.7:9000"}, "203.0.113.7", 9000),
    ],
    ids=["AWS", "own server"],
)
def test_buckets_are_reached_by_fetch_and_export_alone(server: dict[str, Any], host: str, port: int) -> None:
    source = a_run().with_spec(model={"uri": "s3://models/mine", "s3": server})
    published = a_run().with_spec(export={"publish": [{"s3": {**server, "bucket": "models", "prefix": "mine"}}]})
    for stage in Stage:
        assert reaches(bundles(source)[stage], host, port) is (stage is Stage.FETCH)
        assert reaches(bundles(published)[stage], host, port) is (stage is Stage.EXPORT)
        assert not reaches(bundles(published)[stage], METADATA, port)


def test_a_hub_is_published_to_by_export_alone() -> None:
    token = {"name": "hub", "key": "token"}
    run = a_run().with_spec(export={"publish": [{"hub": {"repository": "a/b", "tokenSecretRef": token}}]})
    plain, mirror = bundles(run), bundles(run, hubEndpoint="https://10.1.2.3:8443")
    for stage in Stage:
        assert reaches(plain[stage], HUB, 443) is (stage is Stage.EXPORT)
        assert reaches(mirror[stage], "10.1.2.3", 8443) is (stage is Stage.EXPORT)


def test_registries_are_reached_with_the_servers_that_they_send_to() -> None:
    place = {"registry": "203.0.113.7:5000", "repository": "models/mine"}
    source = a_run().with_spec(model={"uri": "oci://203.0.113.7:5000/models/mine:v1"})
    published = a_run().with_spec(export={"publish": [{"oci": place}]})
    for run, its in ((source, Stage.FETCH), (published, Stage.EXPORT)):
        for stage in Stage:
            assert reaches(bundles(run)[stage], "203.0.113.7", 5000) is (stage is its)
            assert reaches(bundles(run)[stage], HUB, 443) is (stage is its), "tokens and blobs come from elsewhere"


def test_a_tracker_is_reached_by_the_report_alone() -> None:
    run = a_run().with_spec(tracking={"mlflow": {"url": "http://203.0.113.7:5000"}, "tensorboard": {}})
    for stage in Stage:
        assert reaches(bundles(run)[stage], "203.0.113.7", 5000) is (stage is Stage.REPORT)
    assert reaches(bundles(run)[Stage.REPORT], HUB, 53), "the tracker's name has to be found"
    assert not reaches(bundles(run)[Stage.REPORT], METADATA, 5000)


def test_data_of_foreign_tasks_are_fetched_too() -> None:
    run = a_run().with_spec(evaluation={"capability": {"tasks": ["ifeval"]}})
    assert reaches(bundles(run)[Stage.FETCH], HUB, 443)


def test_mirror_and_proxy_are_reached_at_their_ports() -> None:
    run = a_run().with_spec(model={"uri": "hf://org/name"})
    found = bundles(run, hubEndpoint="https://10.1.2.3:8443", proxy={"https": "http://10.1.2.4:3128"})
    assert reaches(found[Stage.FETCH], "10.1.2.3", 8443)
    assert reaches(found[Stage.FETCH], "10.1.2.4", 3128)
    assert not reaches(found[Stage.TRAIN], "10.1.2.4", 3128)
    mine = run.with_spec(stages={"fetch": {"env": [{"name": "HTTPS_PROXY", "value": "http://10.1.2.5:8888"}]}})
    assert reaches(bundles(mine)[Stage.FETCH], "10.1.2.5", 8888)


@pytest.mark.parametrize(
    ("url", "port", "inside"),
    [
        ("https://api.example.com/v1", 443, set()),
        ("http://203.0.113.7:8080/v1", 8080, set()),
        ("http://[2001:db8::7]:8080/v1", 8080, set()),
        ("http://vllm:8000/v1", None, {"team"}),
        ("http://vllm.models:8000/v1", 8000, {"models"}),
        ("http://vllm.models.svc/v1", None, {"models"}),
        ("http://vllm.models.svc.cluster.local:80/v1", None, {"models"}),
    ],
)
def test_an_endpoint_is_reached_by_the_stage_that_asks_it(url: str, port: int | None, inside: set[str]) -> None:
    run = a_run().with_spec(
        prompts={"agents": {"author": endpoint(url)}},
        evaluation={"winRate": {"judges": ["Endpoint"], "endpoint": endpoint(url)["endpoint"]}},
    )
    found = bundles(run)
    for stage in Stage:
        asks = stage in (Stage.ROLLOUT, Stage.PROMPTS, Stage.EVALUATE)
        assert namespaces(found[stage]) == (inside if asks else set())
        if port is not None:
            assert reaches(found[stage], "203.0.113.7", port) is asks
    assert not any(reaches(found[Stage.PROMPTS], METADATA, other) for other in (80, 443, 8000, 8080))


def test_a_server_of_rewards_is_reached_by_the_stages_that_ask_it() -> None:
    server = {"url": "https://rewards.example.com:8443/score"}
    found = bundles(a_run().with_spec(rewards=[{"name": "service", "type": "Http", "endpoint": server}]))
    asking = {stage for stage in Stage if reaches(found[stage], "203.0.113.7", 8443)}
    assert asking == {Stage.FETCH, Stage.ROLLOUT, Stage.JUDGE, Stage.EVALUATE}
    assert not reaches(found[Stage.FETCH], HUB, 443), "the model is a bundled one"
    assert not reaches(found[Stage.JUDGE], METADATA, 8443)


def test_a_gang_talks_within_itself_at_every_port() -> None:
    found = bundles(a_run().with_spec(training={"nodes": 2}))
    train = spec_of(found[Stage.TRAIN])
    peers = [{"podSelector": train["podSelector"]}]
    assert {"from": peers} in train["ingress"]
    assert {"to": peers} in train["egress"]
    alone = spec_of(bundles(a_run())[Stage.TRAIN])
    assert {"from": [{"podSelector": alone["podSelector"]}]} not in alone["ingress"]


def test_other_rules_get_another_name() -> None:
    """An object that exists is never changed: what is new comes beside it, and policies add up."""

    def name(run: RunBuilder) -> str:
        policy = bundles(run)[Stage.PROMPTS].network_policy
        assert policy is not None
        return str(policy["metadata"]["name"])

    asking = a_run().with_spec(prompts={"agents": {"author": endpoint("https://api.example.com/v1")}})
    assert name(a_run()) == name(a_run())
    assert name(a_run()) != name(asking)


def test_none_where_the_installation_wants_none() -> None:
    assert {b.network_policy for b in bundles(a_run(), networkPolicy={"enabled": False}).values()} == {None}
    plain = list(rehearse(a_run().build(), {}, T0, BuildSettings()))
    assert {bundle.network_policy for bundle in plain} == {None}


def test_rules_of_the_site_s_own_and_its_dns() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    found = bundles(a_run(), networkPolicy={"enabled": True, "extraEgress": [rule], "dnsPorts": [53, 5353]})
    assert rule in spec_of(found[Stage.JUDGE])["egress"]
    assert reaches(found[Stage.JUDGE], HUB, 5353)
