"""The NetworkPolicy of a stage's pods: nothing in but the scrape, nothing out but what the stage needs.

| traffic | allowed for |
|---|---|
| in, port 9464 | the operator, and whom the installation names |
| in and out, every port | the pods of one training gang, among themselves: NCCL and gloo choose their ports |
| out, DNS | every stage but a side stage that asks no server |
| out, the hub's port | fetch, of a model from a hub or with foreign tasks, and export that publishes there |
| out, the port of a bucket's server or a registry | fetch of such a model, and export with places to publish to |
| out, an endpoint's port | prompts, judge and evaluate, where an endpoint plays a part |
| out, a port of a server of rewards | judge and evaluate, which ask it, and fetch, which probes it |
| out, a tracker's port | report, where `tracking` names a server |
| out, a proxy's port | the stages that go out at all |
"""

import hashlib
import json
from typing import Final

from dynalign_contract.config import ExportParams, FetchParams, StageConfig
from dynalign_contract.pod_paths import METRICS_PORT, Variable
from dynalign_contract.proxies import PROXY_VARIABLES
from dynalign_contract.server_address import Address, parse_address
from dynalign_contract.sources import HubSource, OciSource, S3Source, parse_source
from dynalign_contract.stages import SIDE_STAGES
from dynalign_contract.stores import OciServer, S3Server
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings, NetworkPolicySettings
from dynalign_operator.manifests.environment import build_environment, plain_variables
from dynalign_operator.manifests.labels import RUN, STAGE, run_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata, shorten
from dynalign_operator.manifests.overrides import stage_overrides
from dynalign_operator.manifests.secrets import endpoints_of

_LONGEST: Final = 63
_DIGITS: Final = 8
_OUTSIDE: Final = "https://any.host.outside"
"""A hub, the servers to which it or a registry sends for tokens and weights, and those of a task's data: no more is
known than the port."""
_ANYWHERE: Final[tuple[KubernetesObject, ...]] = (
    {
        "ipBlock": {
            "cidr": "0.0.0.0/0",
            "except": ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"],
        }
    },
    {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}},
    # Some networks take pods out of every block of addresses.
    {"namespaceSelector": {}},
)
"""Every address but those through which a cloud hands out its credentials."""


def build_network_policy(run: AlignmentRun, config: StageConfig, settings: BuildSettings) -> KubernetesObject | None:
    """The policy of one stage of the run; None where the installation wants none.

    Its name has a digest of its rules: policies add up, so a run whose endpoints change gets a further one.
    """
    wanted = settings.pods.network_policy
    if not wanted.enabled:
        return None
    selector = {"matchLabels": {RUN: run.metadata.name, STAGE: str(config.stage)}}
    addresses = _addresses(run, config, settings)
    gang = [{"podSelector": selector}] if config.nodes > 1 else []
    spec: KubernetesObject = {
        "podSelector": selector,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [_build_scrape(wanted), *({"from": [peer]} for peer in gang)],
        "egress": [
            *([_build_dns(wanted)] if addresses or config.stage not in SIDE_STAGES else []),
            *({"to": [peer]} for peer in gang),
            *(rule for address in addresses for rule in _build_way_out(address, run)),
            *wanted.extra_egress,
        ],
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:_DIGITS]
    name = f"{shorten(f'{run.metadata.name}-{config.stage}', _LONGEST - _DIGITS - 1)}-{digest}"
    labels = {**run_labels(run.metadata.name), STAGE: str(config.stage)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(run, name, labels),
        "spec": spec,
    }


def _build_scrape(wanted: NetworkPolicySettings) -> KubernetesObject:
    rule: KubernetesObject = {"ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}
    if wanted.operator is None:
        return rule
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": wanted.operator.namespace}}
    operator = {"namespaceSelector": namespace, "podSelector": {"matchLabels": wanted.operator.labels}}
    return {**rule, "from": [operator, *wanted.metrics_from]}


def _build_dns(wanted: NetworkPolicySettings) -> KubernetesObject:
    return {"ports": [{"port": port, "protocol": kind} for port in wanted.dns_ports for kind in ("UDP", "TCP")]}


def _addresses(run: AlignmentRun, config: StageConfig, settings: BuildSettings) -> list[Address]:
    """What the stage asks over the network: the hub, its endpoints, and the proxy before these. Each once, in order."""
    overrides = stage_overrides(run, config.stage, settings.pods.pod_defaults)
    variables = plain_variables(build_environment(run, config, overrides, settings, gpus=0))
    urls = [endpoint.url for use, endpoint in endpoints_of(run) if use.is_asked_by(config.stage)]
    if isinstance(config.params, FetchParams):
        source = parse_source(config.params.uri)
        is_online = isinstance(source, HubSource) or bool(config.params.tasks)
        urls += [variables.get(Variable.HUB_ENDPOINT) or _OUTSIDE, _OUTSIDE] if is_online else []
        if isinstance(source, S3Source):
            urls.append((config.params.s3 or S3Server()).address)
        if isinstance(source, OciSource):
            urls += [(config.params.oci or OciServer()).address(source.registry), _OUTSIDE]
    if isinstance(config.params, ExportParams):
        for target in config.params.publish:
            hub = (variables.get(Variable.HUB_ENDPOINT) or _OUTSIDE,) if target.hub is not None else ()
            others = (place.url for place in (target.s3, target.oci) if place is not None)
            urls += [*hub, *others, *([_OUTSIDE] if target.s3 is None else [])]
    if not urls:
        return []
    spellings = [*PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES)]
    found = []
    for url in (*urls, *(variables[name] for name in spellings if variables.get(name))):
        try:
            found.append(parse_address(url))
        except ValueError:  # the stage itself will say so, in better words
            continue
    return sorted({*found}, key=lambda address: (address.host, address.port))


def _build_way_out(address: Address, run: AlignmentRun) -> list[KubernetesObject]:
    """To an address outside by its port; to a Service's pods by their namespace, for their port may be another."""
    outside: KubernetesObject = {
        "ports": [{"port": address.port, "protocol": "TCP"}],
        "to": [dict(peer) for peer in _ANYWHERE],
    }
    labels = address.host.split(".")
    if ":" in address.host:
        return [outside]
    is_service = len(labels) == 1 or "svc" in labels[2:3]
    if not is_service and len(labels) != 2:
        return [outside]
    namespace = labels[1] if len(labels) > 1 else run.metadata.namespace
    within = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]}
    return [within] if is_service else [outside, within]
