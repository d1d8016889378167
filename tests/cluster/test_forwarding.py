"""Docker sets the policy of the chain FORWARD to DROP; the pods of the native node reach each other and others all the same.

All of it happens in network namespaces of its own: this host's rules are neither needed nor touched.
"""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = r"""
set -euo pipefail
forwarding=$1
iptables -P FORWARD DROP
sysctl -qw net.ipv4.ip_forward=1
unshare --net sleep 300 & pod=$!
unshare --net sleep 300 & outside=$!
trap 'kill $pod $outside' EXIT
for process in $pod $outside; do
  until [ "$(readlink /proc/$process/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
done
ip link add pods0 type bridge
ip address add 10.9.0.1/24 dev pods0
ip link set pods0 up
attach() { # PROCESS LINK NETWORK: what is sent from there goes through this namespace
  ip link add "$2" type veth peer name eth0 netns "$1"
  ip link set "$2" up
  nsenter --net --target "$1" ip address add "$3.2/24" dev eth0
  nsenter --net --target "$1" ip link set eth0 up
  nsenter --net --target "$1" ip route add default via "$3.1"
}
attach $pod pod 10.9.0
ip link set pod master pods0
attach $outside out 10.8.0
ip address add 10.8.0.1/24 dev out
reaches() { # a port that nobody listens at refuses at once; a dropped packet is waited for
  local code=0
  nsenter --net --target "$1" timeout 2 bash -c "< /dev/tcp/$2/9" 2>/dev/null || code=$?
  if [ $code = 124 ]; then echo "$3 dropped"; else echo "$3 reached"; fi
}
look() { reaches $pod 10.8.0.2 "$1 outward"; reaches $outside 10.9.0.2 "$1 inward"; }
look before
"$forwarding" allow pods0
"$forwarding" allow pods0
echo "rules $(iptables -S FORWARD | grep -c pods0)"
look allowed
"$forwarding" forbid pods0
echo "rules $(iptables -S FORWARD | grep -c pods0 || true)"
look forbidden
"""


def test_packets_of_pods_pass_until_the_node_is_stopped() -> None:
    forwarding = Path(__file__).with_name("forwarding.sh")
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", SCRIPT, "-", forwarding], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "before outward dropped",
        "before inward dropped",
        "rules 2",
        "allowed outward reached",
        "allowed inward reached",
        "rules 0",
        "forbidden outward dropped",
        "forbidden inward dropped",
    ]
