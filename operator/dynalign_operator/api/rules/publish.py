"""Where models may be published to and come from, and over what the keys for it may travel."""

from collections.abc import Iterator
from typing import Final

from dynalign_contract.addresses import FORBIDDEN_URL, INSIDE_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import KEY_IN_THE_CLEAR, keeps_key
from dynalign_contract.sources import OciSource, S3Source, parse_source
from dynalign_operator.api.rules.rule import ClusterRule, Rule

_S3_SERVERS: Final = ("spec.model.s3", "spec.export.publish[].s3")
_KINDS: Final = ("hub", "oci", "s3")
_STORES: Final = (S3Source, OciSource)
_OF_STORES: Final = "self.uri.startsWith('s3://') || self.uri.startsWith('oci://')"
_REGISTRY: Final = "('https://' + self.registry)"
_MODEL_REGISTRY: Final = "('https://' + self.uri.substring(6))"
_PLAIN: Final = (
    f"self.endpoint.matches('(?i)^https://') || self.endpoint.matches(r'{INSIDE_URL}') || "
    f"self.endpoint.matches(r'{LOOPBACK_URL}')"
)


_CREDENTIALS_IN_THE_CLEAR: Final = (
    "would send the password in plain text; remove it, or name a Service of the cluster, as in NAME.NAMESPACE.svc:5000"
)

_NO_DOCKER_CONFIG: Final = (
    "is for OCI registries only; name a Secret with an access key instead (usernameKey and passwordKey)"
)


def _registry_of(uri: str) -> str:
    """URL of the registry of an `oci://` address; empty for every other."""
    source = parse_source(uri)
    return f"https://{source.registry}" if isinstance(source, OciSource) else ""


def _s3_rules() -> Iterator[Rule]:
    for at in _S3_SERVERS:
        yield Rule(
            at=at,
            field="endpoint",
            cel=f"!has(self.endpoint) || !self.endpoint.matches(r'{FORBIDDEN_URL}')",
            message="is link-local, a metadata service's, or no address of a server; write the address of a server, "
            "IPv4 addresses in their usual form",
            holds=lambda server: not matches(FORBIDDEN_URL, server.address),
        )


PUBLISH_RULES: Final = (
    *_s3_rules(),
    Rule(
        at="spec.export.publish[]",
        field="",
        cel=f"[{', '.join(f'has(self.{kind})' for kind in _KINDS)}].filter(x, x).size() == 1",
        message=f"names no place, or several; write one of {', '.join(_KINDS)}",
        holds=lambda target: sum(getattr(target, kind) is not None for kind in _KINDS) == 1,
    ),
    Rule(
        at="spec.export.publish[].s3",
        field="endpoint",
        cel=f"!has(self.credentialsSecretRef) || !has(self.endpoint) || {_PLAIN}",
        message=KEY_IN_THE_CLEAR,
        holds=lambda target: target.credentials_secret_ref is None or keeps_key(target.address),
    ),
    Rule(
        at="spec.model",
        field="s3.endpoint",
        cel="!has(self.credentialsSecretRef) || !has(self.s3) || !has(self.s3.endpoint) || "
        + _PLAIN.replace("self.", "self.s3."),
        message=KEY_IN_THE_CLEAR,
        holds=lambda model: model.credentials_secret_ref is None or model.s3 is None or keeps_key(model.s3.address),
    ),
    Rule(
        at="spec.model",
        field="s3",
        cel="!has(self.s3) || self.uri.startsWith('s3://')",
        message="is for s3:// models only; remove it, or write an s3:// uri",
        holds=lambda model: model.s3 is None or isinstance(parse_source(model.uri), S3Source),
    ),
    Rule(
        at="spec.model",
        field="credentialsSecretRef",
        cel=f"!has(self.credentialsSecretRef) || {_OF_STORES}",
        message="is for s3:// and oci:// models only; remove it, or write such a uri",
        holds=lambda model: model.credentials_secret_ref is None or isinstance(parse_source(model.uri), _STORES),
    ),
    Rule(
        at="spec.export.publish[].s3",
        field="credentialsSecretRef.dockerConfigKey",
        cel="!has(self.credentialsSecretRef) || !has(self.credentialsSecretRef.dockerConfigKey)",
        message=_NO_DOCKER_CONFIG,
        holds=lambda target: (
            target.credentials_secret_ref is None or target.credentials_secret_ref.docker_config is None
        ),
    ),
    Rule(
        at="spec.model",
        field="credentialsSecretRef.dockerConfigKey",
        cel="!has(self.credentialsSecretRef) || !has(self.credentialsSecretRef.dockerConfigKey) || "
        "!self.uri.startsWith('s3://')",
        message=_NO_DOCKER_CONFIG,
        holds=lambda model: (
            model.credentials_secret_ref is None
            or model.credentials_secret_ref.docker_config is None
            or not isinstance(parse_source(model.uri), S3Source)
        ),
    ),
    Rule(
        at="spec.model",
        field="oci",
        cel="!has(self.oci) || self.uri.startsWith('oci://')",
        message="is for oci:// models only; remove it, or write an oci:// uri",
        holds=lambda model: model.oci is None or isinstance(parse_source(model.uri), OciSource),
    ),
    Rule(
        at="spec.model",
        field="uri",
        cel=f"!self.uri.startsWith('oci://') || !{_MODEL_REGISTRY}.matches(r'{FORBIDDEN_URL}')",
        message="names a registry that is link-local, a metadata service's, or no address of a server; write the host "
        "of a registry",
        holds=lambda model: not matches(FORBIDDEN_URL, _registry_of(model.uri)),
    ),
    Rule(
        at="spec.model",
        field="oci.plainHttp",
        cel="!has(self.credentialsSecretRef) || !has(self.oci) || !self.oci.plainHttp || "
        "!self.uri.startsWith('oci://') || "
        f"{_MODEL_REGISTRY}.matches(r'{INSIDE_URL}') || {_MODEL_REGISTRY}.matches(r'{LOOPBACK_URL}')",
        message=_CREDENTIALS_IN_THE_CLEAR,
        holds=lambda model: (
            model.credentials_secret_ref is None
            or model.oci is None
            or not model.oci.plain_http
            or keeps_key(_registry_of(model.uri).replace("https://", "http://"))
        ),
    ),
    Rule(
        at="spec.export.publish[].oci",
        field="registry",
        cel=f"!{_REGISTRY}.matches(r'{FORBIDDEN_URL}')",
        message="is link-local, a metadata service's, or no address of a server; write the host of a registry",
        holds=lambda target: not matches(FORBIDDEN_URL, target.url),
    ),
    Rule(
        at="spec.export.publish[].oci",
        field="plainHttp",
        cel="!has(self.credentialsSecretRef) || !self.plainHttp || "
        f"{_REGISTRY}.matches(r'{INSIDE_URL}') || {_REGISTRY}.matches(r'{LOOPBACK_URL}')",
        message=_CREDENTIALS_IN_THE_CLEAR,
        holds=lambda target: target.credentials_secret_ref is None or keeps_key(target.url),
    ),
)
PUBLISH_CLUSTER_RULES: Final = (
    *(
        ClusterRule(
            at=at,
            field="endpoint",
            cel=f"!has(self.endpoint) || !self.endpoint.matches(r'{LOOPBACK_URL}')",
            message="is the pod's own address, where no such server is; write the name of its Service",
        )
        for at in _S3_SERVERS
    ),
    ClusterRule(
        at="spec.export.publish[].oci",
        field="registry",
        cel=f"!{_REGISTRY}.matches(r'{LOOPBACK_URL}')",
        message="is the pod's own address, where no registry is; write the name of its Service",
    ),
)
