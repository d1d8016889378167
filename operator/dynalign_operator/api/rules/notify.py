"""Where notifications may be sent."""

from typing import Final

from dynalign_contract.addresses import FORBIDDEN_URL, INSIDE_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import keeps_key
from dynalign_operator.api.rules.rule import ClusterRule, Rule

NOTIFY_RULES: Final = (
    Rule(
        at="spec.notify[]",
        field="url",
        cel=f"!self.url.matches(r'{FORBIDDEN_URL}')",
        message="is link-local, a metadata service's, or no address of a server; write the address of a server that "
        "takes webhooks, IPv4 addresses in their usual form",
        holds=lambda webhook: not matches(FORBIDDEN_URL, webhook.url),
    ),
    Rule(
        at="spec.notify[]",
        field="url",
        cel=f"self.url.matches('(?i)^https://') || self.url.matches(r'{INSIDE_URL}') || "
        f"self.url.matches(r'{LOOPBACK_URL}')",
        message="would be told in plain text; begin it with https://, or name a Service of the cluster, as in "
        "http://NAME.NAMESPACE.svc:8080/hook",
        holds=lambda webhook: keeps_key(webhook.url),
    ),
)
NOTIFY_CLUSTER_RULES: Final = (
    ClusterRule(
        at="spec.notify[]",
        field="url",
        cel=f"!self.url.matches(r'{LOOPBACK_URL}')",
        message="is the operator's own address, where no such server is; write the name of its Service",
    ),
)
