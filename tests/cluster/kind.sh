#!/usr/bin/env bash
# Starts a cluster with kind, with a default StorageClass that binds ReadWriteMany claims: on the only node, every pod
# sees the same directory. Called by up.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
mkdir -p "$CACHE"
export KUBECONFIG=$KIND_KUBECONFIG
kind create cluster --name "$KIND_CLUSTER" --wait 120s
kubectl patch configmap local-path-config -n local-path-storage --type merge \
  -p '{"data": {"config.json": "{\"sharedFileSystemPath\": \"/var/local-path-provisioner\"}"}}'
kubectl rollout restart deployment local-path-provisioner -n local-path-storage
kubectl rollout status deployment local-path-provisioner -n local-path-storage --timeout 60s
