#!/usr/bin/env bash
# Starts a cluster with kind, or again one that was stopped, with a default StorageClass that binds ReadWriteMany claims:
# every node sees one folder of this host as the place of all volumes. Called by ../up.sh; idempotent.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
mkdir -p "$KIND_WORK"
exec 9> "$KIND_WORK/.up.lock"
flock 9   # two callers start one cluster
docker_works || { echo "Docker does not answer (docker info): start it, or unset DYNALIGN_TEST_CLUSTER"; exit 1; }
kind_can_run || { echo "Docker cannot run the privileged nodes of kind, for this host lacks CAP_SYS_RESOURCE: give dockerd the" \
  "runtime $HERE/kind/runc-without-sys-resource, as is said there"; exit 1; }
command -v kind >/dev/null || "$HERE/kind/tools.sh" kind

LOGS="kind export logs --name $KIND_CLUSTER"

# kubectl is in every node's image, and need not be on this host.
in_node() { docker exec "$KIND_CLUSTER-control-plane" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"; }

configuration() {
  local worker mounts="extraMounts: [{hostPath: $KIND_WORK/volumes-$KIND_CLUSTER, containerPath: /var/local-path-provisioner}]"
  echo "{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4,"
  if [ ! -f /sys/fs/cgroup/cgroup.controllers ]; then   # cgroup v1, which Kubernetes refuses since 1.35
    echo ' kubeadmConfigPatches: ["kind: KubeletConfiguration\nfailCgroupV1: false\n"],'
  fi
  echo " nodes: [{role: control-plane, $mounts}"
  for ((worker = 1; worker < KIND_NODES; worker++)); do echo "  , {role: worker, $mounts}"; done
  echo " ]}"
}

create() { # [OPTION...]
  kind create cluster --name "$KIND_CLUSTER" --kubeconfig "$KIND_KUBECONFIG" --config <(configuration) --wait 180s "$@" 2>&1 |
    tee "$KIND_WORK/create.log"
}

make_cluster() {
  local image=${DYNALIGN_TEST_KIND_IMAGE:-}
  mkdir -p "$KIND_WORK/volumes-$KIND_CLUSTER"
  if [ -z "$image" ] && docker image inspect "$KIND_IMAGE_NAME:latest" >/dev/null 2>&1; then image=built; fi
  if [ -z "$image" ]; then
    create && return
    grep -q "failed to pull image" "$KIND_WORK/create.log" || return 1
    image=built   # there is no registry with kind's own
  fi
  if [ "$image" = built ]; then
    image=$("$HERE/kind/image.sh")
    docker tag "$image" "$KIND_IMAGE_NAME:latest"
  fi
  create --image "$image"
}

if kind_exists; then
  # shellcheck disable=SC2046 # names of containers
  docker start $(kind get nodes --name "$KIND_CLUSTER") >/dev/null   # stopped by down.sh, or by a restart of this host
  [ -s "$KIND_KUBECONFIG" ] || kind export kubeconfig --name "$KIND_CLUSTER" --kubeconfig "$KIND_KUBECONFIG"
  until_ok "the API server of kind" 300 in_node get --raw /readyz
else
  make_cluster
  docker inspect -f '{{.Id}}' "$KIND_CLUSTER-control-plane" > "$KIND_MADE"   # down.sh deletes this one and no other
fi
in_node wait nodes --all --for=condition=Ready --timeout=300s >/dev/null   # kind itself waits for the control plane only

shared='{"sharedFileSystemPath": "/var/local-path-provisioner"}'
if [ "$(in_node get configmap local-path-config -n local-path-storage -o 'jsonpath={.data.config\.json}')" != "$shared" ]; then
  in_node patch configmap local-path-config -n local-path-storage --type merge -p "{\"data\": {\"config.json\": \"${shared//\"/\\\"}\"}}"
  in_node rollout restart deployment local-path-provisioner -n local-path-storage
fi
in_node rollout status deployment local-path-provisioner -n local-path-storage --timeout 300s >/dev/null
in_node rollout status deployment coredns -n kube-system --timeout 300s >/dev/null
