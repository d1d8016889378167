#!/bin/bash
# Stands in for kindnetd in the node image that image.sh builds, under its name and in its DaemonSet: the pod network of this
# node (CNI plugins ptp and host-local), a route to the pods of every other node, and a masquerade for what leaves the pod
# network. It enforces no NetworkPolicies.
set -u
export HOME=/tmp
ACCOUNT=/var/run/secrets/kubernetes.io/serviceaccount
CONFIGURATION=/etc/cni/net.d/10-kindnet.conflist

nodes() { # prints NAME CIDR ADDRESS of every node
  kubectl --server "https://${CONTROL_PLANE_ENDPOINT:-$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT}" \
    --token "$(cat $ACCOUNT/token)" --certificate-authority $ACCOUNT/ca.crt get nodes -o \
    'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.podCIDR}{" "}{.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
}

iptables -t nat -N KIND-MASQ 2>/dev/null
iptables -t nat -F KIND-MASQ
iptables -t nat -A KIND-MASQ -d "$POD_SUBNET" -j RETURN
iptables -t nat -A KIND-MASQ -j MASQUERADE
outward=(POSTROUTING -s "$POD_SUBNET" -m addrtype ! --dst-type LOCAL -j KIND-MASQ)
iptables -t nat -C "${outward[@]}" 2>/dev/null || iptables -t nat -A "${outward[@]}"

configure() { # CIDR
  [ ! -f "$CONFIGURATION" ] || return 0
  cat > /etc/cni/net.d/.new <<C
{"cniVersion": "0.3.1", "name": "kindnet", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "$1"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
  mv /etc/cni/net.d/.new "$CONFIGURATION"
}

while true; do
  wait=15
  if ! list=$(nodes); then sleep 1; continue; fi
  while read -r _ cidr address; do
    if [ -z "${address:-}" ]; then wait=1
    elif [ "$address" = "$HOST_IP" ]; then configure "$cidr"
    else ip route replace "$cidr" via "$address"
    fi
  done <<< "$list"
  sleep $wait
done
