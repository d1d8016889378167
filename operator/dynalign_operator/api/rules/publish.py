"""Where models may be published to and come from, and over what the keys for it may travel."""

from collections.abc import Iterator
from typing import Final

from dynalign_contract.addresses import FORBIDDEN_URL, INSIDE_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import KEY_IN_THE_CLEAR, keeps_key
from dynalign_contract.sources import S3Source, parse_source
from dynalign_operator.api.rules.rule import ClusterRule, Rule

_S3_SERVERS: Final = ("spec.model.s3", "spec.export.publish[].s3")
_KINDS: Final = ("s3",)
_PLAIN: Final = (
    f"self.endpoint.matches('(?i)^https://') || self.endpoint.matches(r'{INSIDE_URL}') || "
    f"self.endpoint.matches(r'{LOOPBACK_URL}')"
)


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
        message=f"names no place; write {' or '.join(_KINDS)}",
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
        cel="!has(self.credentialsSecretRef) || self.uri.startsWith('s3://')",
        message="is for s3:// models only; remove it, or write an s3:// uri",
        holds=lambda model: model.credentials_secret_ref is None or isinstance(parse_source(model.uri), S3Source),
    ),
)
PUBLISH_CLUSTER_RULES: Final = tuple(
    ClusterRule(
        at=at,
        field="endpoint",
        cel=f"!has(self.endpoint) || !self.endpoint.matches(r'{LOOPBACK_URL}')",
        message="is the pod's own address, where no such server is; write the name of its Service",
    )
    for at in _S3_SERVERS
)
