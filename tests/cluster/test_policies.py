"""NetworkPolicies are enforced, so that a run that needs a connection which no policy allows fails on this cluster."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cluster import CACHE, Cluster, LabError, bring_up, own_namespace
from support.base_image import IMAGE, give_base_image
from support.cluster_place import ClusterPlace
from support.cluster_runs import a_pod, until
from support.network_policies import DENY_ALL, a_policy, pods_of, port

pytestmark = pytest.mark.cluster

PATIENCE = 60.0
PORT = 8000
SERVER, CLIENT = "server", "client"
SERVE = ["python3", "-m", "http.server", str(PORT), "--directory", "/tmp"]  # noqa: S108 - of the pod
CONNECT = "import socket; socket.create_connection(('{host}', {port}), timeout=2).close()"

LEAVE = r"""
set -euo pipefail
ipset create KUBE-SRC-1 hash:ip
ipset create OTHER hash:ip
iptables-restore <<'RULES'
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:OTHER - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-A2 - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
-A FORWARD -m comment --comment "kube-router netpol - A1" -j KUBE-ROUTER-FORWARD
-A FORWARD -j OTHER
-A KUBE-ROUTER-FORWARD -d 10.9.0.2/32 -m comment --comment "to POD name:p" -j KUBE-POD-FW-A2
-A KUBE-POD-FW-A2 -m set --match-set KUBE-SRC-1 src -j KUBE-NWPLCY-DEFAULT
COMMIT
RULES
for _ in 1 2; do
  "$1" clean
  iptables -S | grep -vE '^-P'
  ipset list -n
done
"""
"""What kube-router leaves, and rules of others; in a network namespace of its own."""


@dataclass(frozen=True)
class Place(ClusterPlace):
    """A namespace with a server behind a Service, and a client."""

    def create(self, *manifests: object) -> None:
        for manifest in manifests:
            self.kubectl("create", "-f-", manifest=manifest)

    def ip(self, what: str, namespace: str = "") -> str:
        """Address of a Service."""
        place = ("-n", namespace) if namespace else ()
        return self.kubectl(*place, "get", "service", what, "-o", "jsonpath={.spec.clusterIP}")

    def connects(self, host: str, port: int) -> bool:
        """Whether the client can open a connection to an address, or to a name that it has to look up."""
        try:
            self.kubectl("exec", CLIENT, "--", "python3", "-c", CONNECT.format(host=host, port=port))
        except LabError:
            return False
        return True

    def await_connections(self, expected: dict[tuple[str, int], bool]) -> None:
        """Wait until the client can open these connections, and no others."""
        until(
            lambda: {address: self.connects(*address) for address in expected} == expected,
            f"{expected} from the client",
            lambda: self.kubectl("get", "networkpolicies", "-o", "yaml"),
            PATIENCE,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    cluster = bring_up()
    give_base_image()
    with own_namespace(cluster, "policies") as namespace:
        place = Place(cluster, namespace)
        for name, command in ((SERVER, SERVE), (CLIENT, ["sleep", "3600"])):
            pod = a_pod(name, command, IMAGE)
            pod["metadata"]["labels"] = {"app": name}
            place.create(pod)
        spec = {"selector": {"app": SERVER}, "ports": [{"port": 80, "targetPort": PORT}]}
        place.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVER}, "spec": spec})
        for name in (SERVER, CLIENT):
            place.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=90s")
        yield place


@pytest.fixture
def enforced(place: Place) -> Place:
    """The namespace with a policy that denies everything; skips on a cluster of the user's that takes no notice of it."""
    server, by_name, api = addresses(place)
    place.await_connections({server: True, by_name: True, api: True})
    place.create(DENY_ALL)
    try:
        place.await_connections({server: False, by_name: False, api: False})
    except AssertionError:
        if is_native(place.cluster):
            raise
        pytest.skip("this cluster's network enforces no NetworkPolicies")
    return place


def addresses(place: Place) -> tuple[tuple[str, int], ...]:
    """The server by its Service's address and by its name, and the API server, which is no pod."""
    return (place.ip(SERVER), 80), (f"{SERVER}.{place.namespace}.svc", 80), (place.ip("kubernetes", "default"), 443)


def is_native(cluster: Cluster) -> bool:
    """Whether it is the native node, which enforces them."""
    return Path(cluster.kubeconfig).is_relative_to(CACHE / "node")


def test_what_no_policy_allows_is_refused_and_what_one_allows_is_not(enforced: Place) -> None:
    server, by_name, api = addresses(enforced)
    to_server = {"to": [pods_of(enforced.namespace)], "ports": [port(PORT)]}
    enforced.create(a_policy("out", {"app": CLIENT}, egress=[to_server]))
    enforced.create(a_policy("in", {"app": SERVER}, ingress=[{"from": [pods_of(enforced.namespace)]}]))
    enforced.await_connections({server: True, by_name: False, api: False})
    enforced.create(a_policy("dns", {"app": CLIENT}, egress=[{"ports": [port(53, "UDP"), port(53)]}]))
    enforced.await_connections({server: True, by_name: True, api: False})
    enforced.create(a_policy("api", {"app": CLIENT}, egress=[{"ports": [port(443), port(6443)]}]))
    enforced.await_connections({server: True, by_name: True, api: True})
    enforced.kubectl("delete", "networkpolicy", "in")
    enforced.await_connections({server: False, by_name: False, api: True})


def test_a_service_without_pods_does_not_answer_where_everything_may_be_reached(enforced: Place) -> None:
    enforced.create(a_policy("out", {"app": CLIENT}, egress=[{}]))
    spec = {"selector": {"app": "nothing"}, "ports": [{"port": 443}]}
    enforced.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"}, "spec": spec})
    enforced.await_connections({addresses(enforced)[2]: True, (enforced.ip("empty"), 443): False})


def test_a_node_that_is_stopped_leaves_no_rules() -> None:
    script = Path(__file__).with_name("policies.sh")
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", LEAVE, "-", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-N OTHER", "-A FORWARD -j OTHER", "OTHER"] * 2
