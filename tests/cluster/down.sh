#!/usr/bin/env bash
# down.sh [--purge] [native|kind]: stops what up.sh started, by the recorded pids and containers; a cluster of the user's is
# left alone, whatever its name. With --purge the state goes too: the kubelet takes the pods down first, then keys, etcd data,
# volumes, bridge and service rules are removed, and kind's nodes are deleted. Images stay.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
purge=no part=all
for argument in "$@"; do
  case $argument in
    --purge) purge=yes ;;
    native | kind) part=$argument ;;
    *) sed -n '2,4s/^# *//p' "$0" >&2; exit 2 ;;
  esac
done

stop_kind() { # the cluster of KIND_CLUSTER, if kind/up.sh made it
  kind_is_ours || return 0
  if [ $purge = yes ]; then
    kind delete cluster --name "$KIND_CLUSTER" --kubeconfig "$KIND_KUBECONFIG"
    rm -rf "$KIND_KUBECONFIG" "$KIND_MADE" "$KIND_WORK/volumes-$KIND_CLUSTER"
  else
    # shellcheck disable=SC2046 # names of containers
    docker stop -t 20 $(kind get nodes --name "$KIND_CLUSTER") >/dev/null
  fi
}
case $part in
  kind) stop_kind ;;
  all)
    for made in "$KIND_WORK"/*.made; do
      [ -s "$made" ] || continue
      KIND_CLUSTER=$(basename "$made" .made) KIND_MADE=$made KIND_KUBECONFIG=${made%.made}.kubeconfig
      stop_kind
    done ;;
esac
[ $part != kind ] && [ -d "$STATE/run" ] || exit 0

stop scheduler
stop controller-manager   # from here on nothing replaces a deleted pod
if [ $purge = yes ] && running apiserver && running kubelet; then
  node_kubectl delete pods -A --field-selector "spec.nodeName=$NODE" --grace-period=1 --timeout=60s >/dev/null 2>&1 || true
fi
for component in kubelet proxy policies coredns apiserver etcd; do stop "$component"; done

# Containers outlive both kubelet and containerd: end them while containerd can still be asked.
if running containerd; then
  for _ in $(seq 50); do
    tasks=$(node_ctr tasks ls 2>/dev/null | awk 'NR > 1 && $3 == "RUNNING" {print $1}')
    [ -n "$tasks" ] || break
    for task in $tasks; do node_ctr tasks kill -s SIGKILL "$task" >/dev/null 2>&1 || true; done
    sleep 0.1
  done
fi
stop containerd
"$HERE/policies.sh" clean
"$HERE/forwarding.sh" forbid "$BRIDGE"

if [ $purge = yes ]; then
  awk -v under="$STATE/" 'index($2, under) == 1 {print $2}' /proc/self/mounts | sort -r |
    while read -r mount; do umount "$mount" || umount -l "$mount"; done
  "$BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
  ip rule del iif "$BRIDGE" to "$SERVICE_PREFIX.0.0/16" unreachable 2>/dev/null || true
  ip link del "$BRIDGE" 2>/dev/null || true
  if [ /tmp/hostpath_pv -ef "$STATE/volumes" ]; then rm /tmp/hostpath_pv; fi
  rm -rf "$STATE"
fi
