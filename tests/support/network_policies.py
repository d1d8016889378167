"""NetworkPolicies of a test's namespace."""

from typing import Any, Final

Object = dict[str, Any]

DENY_ALL: Final[Object] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "default-deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
"""Nothing goes in and nothing out, for all pods of the namespace."""


def a_policy(name: str, labels: dict[str, str], **rules: list[Object]) -> Object:
    """Allow the pods with these labels what `ingress` and `egress` say."""
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": [kind.capitalize() for kind in rules], **rules}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def pods_of(namespace: str) -> Object:
    """All pods of a namespace, as a NetworkPolicyPeer."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def port(number: int, protocol: str = "TCP") -> Object:
    """A NetworkPolicyPort."""
    return {"port": number, "protocol": protocol}
