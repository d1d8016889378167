#!/usr/bin/env bash
# Starts one node from the components in $BIN, Debian's containerd and runc, as processes of this host (root).
# Called by up.sh after build.sh; returns when the node can run pods.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
umask 022
mkdir -p "$STATE"/{pki,etcd,log,run,kubelet,cni,conf,volumes} "$CONTAINERD_ROOT"
cd "$STATE"
exec 9> "$CACHE/.node.lock"
flock 9   # two callers start one node

# --- network: the bridge is made here, not by the first pod; API server, kubelet and CoreDNS listen on its address ----
if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
  ip link add "$BRIDGE" type bridge
  ip addr add "$IP/16" dev "$BRIDGE"
  ip link set "$BRIDGE" up
fi
"$HERE/forwarding.sh" allow "$BRIDGE"
# What policies let through never meets kube-proxy's refusal of a Service that has no pods: without this rule such packets
# leave the host, and who knows what answers there.
ip rule show | grep -q "to $SERVICE_PREFIX.0.0/16 iif $BRIDGE unreachable" ||
  ip rule add iif "$BRIDGE" to "$SERVICE_PREFIX.0.0/16" unreachable

# --- keys, kubeconfigs and configuration ------------------------------------------------------------------------------
sign() { # NAME SUBJECT [EXTENSIONS]
  openssl req "${EC[@]}" -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 3650 -out "pki/$1.crt" \
    -extfile <(echo "${3:-basicConstraints=CA:FALSE}") 2>/dev/null
}
EC=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
if [ ! -f pki/done ]; then
  service=kubernetes.default.svc
  openssl req -x509 "${EC[@]}" -keyout pki/ca.key -out pki/ca.crt -subj /CN=dynalign-test-ca -days 3650 2>/dev/null
  sign apiserver /CN=kube-apiserver "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:$service,DNS:$service.cluster.local,IP:$IP,IP:$SERVICE_PREFIX.0.1"
  sign admin /O=system:masters/CN=admin
  sign controller-manager /CN=system:kube-controller-manager
  sign scheduler /CN=system:kube-scheduler
  sign kubelet "/O=system:nodes/CN=system:node:$NODE"
  sign proxy /CN=system:kube-proxy
  sign kubelet-client /O=system:masters/CN=apiserver-kubelet-client
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out pki/service-account.key 2>/dev/null
  openssl pkey -in pki/service-account.key -pubout -out pki/service-account.pub 2>/dev/null
  touch pki/done
fi
for user in admin controller-manager scheduler kubelet proxy; do
  (umask 077; put "$user.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: dynalign, cluster: {server: "https://$IP:$API_PORT", certificate-authority-data: $(base64 -w0 < pki/ca.crt)}}]
users: [{name: $user, user: {client-certificate-data: $(base64 -w0 < "pki/$user.crt"), client-key-data: $(base64 -w0 < "pki/$user.key")}}]
contexts: [{name: dynalign, context: {cluster: dynalign, user: $user}}]
current-context: dynalign
K
)
done
fill_in() { # TEMPLATE TARGET
  sed -e "s|@IP@|$IP|g" -e "s|@STATE@|$STATE|g" -e "s|@NODE@|$NODE|g" -e "s|@BRIDGE@|$BRIDGE|g" -e "s|@POD_PREFIX@|$POD_PREFIX|g" \
    -e "s|@CONTAINERD_ROOT@|$CONTAINERD_ROOT|g" -e "s|@PAUSE_IMAGE@|$PAUSE_IMAGE|g" -e "s|@KUBECONFIG@|$NODE_KUBECONFIG|g" "$HERE/conf/$1" | put "$2"
}
for file in containerd.toml kubelet.yaml proxy.yaml scheduler.yaml Corefile; do fill_in "$file" "conf/$file"; done
fill_in bridge.conflist cni/10-bridge.conflist

# --- volumes: upstream's provisioner knows one place, which a link leads here -----------------------------------------
VOLUME_PLACE=/tmp/hostpath_pv
if [ -L "$VOLUME_PLACE" ] && ! [ "$VOLUME_PLACE" -ef volumes ]; then rm "$VOLUME_PLACE"; fi
[ -e "$VOLUME_PLACE" ] || ln -s "$STATE/volumes" "$VOLUME_PLACE"
[ "$VOLUME_PLACE" -ef volumes ] || { echo "$VOLUME_PLACE belongs to somebody else: remove it"; exit 1; }
chown "$WORKLOAD_UID:$WORKLOAD_UID" volumes

# --- control plane ----------------------------------------------------------------------------------------------------
start containerd containerd --config "$STATE/conf/containerd.toml"
# --unsafe-no-fsync: the data only have to survive a killed process, not a killed machine.
start etcd "$BIN/etcd" --data-dir "$STATE/etcd" \
  --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
  --listen-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" --unsafe-no-fsync
start apiserver "$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$ETCD_PORT" \
  --bind-address "$IP" --secure-port "$API_PORT" --advertise-address "$IP" --service-cluster-ip-range "$SERVICE_PREFIX.0.0/16" \
  --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt \
  --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file pki/service-account.pub --service-account-signing-key-file pki/service-account.key \
  --kubelet-client-certificate pki/kubelet-client.crt --kubelet-client-key pki/kubelet-client.key \
  --kubelet-preferred-address-types InternalIP \
  --authorization-mode Node,RBAC --allow-privileged --enable-admission-plugins NodeRestriction
until_ok "API server" 60 node_kubectl get --raw /readyz

# The directory of a volume belongs to whom the controller manager is, and fsGroup does not change hostPath volumes: it
# runs as the user of the pods, with the two capabilities that let it reach $STATE and delete what kubelet made in volumes.
# The default 20 requests/s of the controller manager hold the whole cluster to about 3 Jobs/s; the volume binder's
# default period delays a claim by up to 15 s.
AS="setpriv --reuid $WORKLOAD_UID --regid $WORKLOAD_UID --clear-groups --inh-caps +dac_override,+dac_read_search --ambient-caps +dac_override,+dac_read_search" \
start controller-manager "$BIN/kube-controller-manager" --kubeconfig "$STATE/controller-manager.kubeconfig" \
  --service-account-private-key-file pki/service-account.key --root-ca-file pki/ca.crt --use-service-account-credentials \
  --leader-elect=false --allocate-node-cidrs=false --bind-address 127.0.0.1 --enable-hostpath-provisioner \
  --kube-api-qps 500 --kube-api-burst 1000 --concurrent-job-syncs 20 --pvclaimbinder-sync-period 1s
start scheduler "$BIN/kube-scheduler" --config "$STATE/conf/scheduler.yaml" --bind-address 127.0.0.1

# --- node -------------------------------------------------------------------------------------------------------------
until_ok containerd 30 node_ctr version
"$HERE/images.sh" load pause
running kubelet || kubelet_since=$(date +%s)
start kubelet "$BIN/kubelet" --config "$STATE/conf/kubelet.yaml" --kubeconfig "$STATE/kubelet.kubeconfig" \
  --root-dir "$STATE/kubelet" --hostname-override "$NODE" --node-ip "$IP"
start proxy "$BIN/kube-proxy" --config "$STATE/conf/proxy.yaml"
start coredns "$BIN/coredns" -conf "$STATE/conf/Corefile"
# After forwarding.sh: its rules have to stand before those that let all packets of pods through.
start policies "$BIN/kube-router" --kubeconfig "$NODE_KUBECONFIG" --hostname-override "$NODE" --enable-ipv6=false \
  --run-firewall=true --run-router=false --run-service-proxy=false --service-cluster-ip-range "$SERVICE_PREFIX.0.0/16" \
  --health-port "$POLICIES_PORT"

# Ready alone is not enough: after a restart the condition of the last run still says True, so its heartbeat has to be new.
node_ready() {
  local ready heartbeat
  read -r ready heartbeat < <(node_kubectl get node "$NODE" \
    -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}{"\n"}')
  [ "$ready" = True ] && [ "$(date -d "$heartbeat" +%s)" -ge "${kubelet_since:-0}" ]
}
until_ok "controller manager" 60 curl -kfs https://127.0.0.1:10257/healthz
until_ok scheduler 60 curl -kfs https://127.0.0.1:10259/healthz
until_ok kube-proxy 60 curl -fs http://127.0.0.1:10256/healthz
until_ok node 120 node_ready
until_ok "enforcement of NetworkPolicies" 60 curl -fs "http://127.0.0.1:$POLICIES_PORT/healthz"
until_ok CoreDNS 60 curl -fs "http://$IP:8181/ready"
until_ok "default service account" 60 node_kubectl get serviceaccount default -n default
node_kubectl apply -f "$HERE/manifests/storage-class.yaml" >/dev/null
