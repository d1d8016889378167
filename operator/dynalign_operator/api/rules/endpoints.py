"""Where endpoints may be, and over what a key may travel."""

from collections.abc import Iterator
from typing import Final

from dynalign_contract.addresses import FORBIDDEN_URL, INSIDE_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import KEY_IN_THE_CLEAR, keeps_key
from dynalign_operator.api.rules.rule import ClusterRule, Rule

_ENDPOINTS: Final = (
    "spec.prompts.agents.*.endpoint",
    "spec.judging.judges[].endpoint",
    "spec.evaluation.winRate.endpoint",
    "spec.rewards[].endpoint",
    "spec.tracking.mlflow",
)


def _matches(pattern: str) -> str:
    return f"self.url.matches(r'{pattern}')"


def _rules() -> Iterator[Rule]:
    for at in _ENDPOINTS:
        yield Rule(
            at=at,
            field="url",
            cel=f"!{_matches(FORBIDDEN_URL)}",
            message="is link-local, a metadata service's, or no address of a server; write the address of a server, "
            "IPv4 addresses in their usual form",
            holds=lambda endpoint: not matches(FORBIDDEN_URL, endpoint.url),
        )
        yield Rule(
            at=at,
            field="url",
            cel=f"!has(self.apiKeySecretRef) || self.url.matches('(?i)^https://') || {_matches(INSIDE_URL)}"
            f" || {_matches(LOOPBACK_URL)}",
            message=KEY_IN_THE_CLEAR,
            holds=lambda endpoint: endpoint.api_key_secret_ref is None or keeps_key(endpoint.url),
        )


ENDPOINT_RULES: Final = tuple(_rules())
ENDPOINT_CLUSTER_RULES: Final = tuple(
    ClusterRule(
        at=at,
        field="url",
        cel=f"!{_matches(LOOPBACK_URL)}",
        message="is the pod's own address, where no such server is; write the name of its Service",
    )
    for at in _ENDPOINTS
)
