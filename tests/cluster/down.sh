#!/usr/bin/env bash
# Stops what up.sh started, by the recorded pids; a cluster of the user's is left alone. With --purge the state goes too:
# the kubelet takes the pods down first, then keys, etcd data, volumes, bridge and service rules are removed. Images stay.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ -f "$KIND_KUBECONFIG" ] && kind_runs; then kind delete cluster --name "$KIND_CLUSTER"; rm -f "$KIND_KUBECONFIG"; fi
[ -d "$STATE/run" ] || exit 0

stop scheduler
stop controller-manager   # from here on nothing replaces a deleted pod
if [ "${1:-}" = --purge ] && running apiserver && running kubelet; then
  node_kubectl delete pods -A --field-selector "spec.nodeName=$NODE" --grace-period=1 --timeout=60s >/dev/null 2>&1 || true
fi
for component in kubelet proxy coredns apiserver etcd; do stop "$component"; done

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

if [ "${1:-}" = --purge ]; then
  awk -v under="$STATE/" 'index($2, under) == 1 {print $2}' /proc/self/mounts | sort -r |
    while read -r mount; do umount "$mount" || umount -l "$mount"; done
  "$BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
  ip link del "$BRIDGE" 2>/dev/null || true
  if [ /tmp/hostpath_pv -ef "$STATE/volumes" ]; then rm /tmp/hostpath_pv; fi
  rm -rf "$STATE"
fi
