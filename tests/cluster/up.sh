#!/usr/bin/env bash
# Gives a working cluster and prints the line that selects it: eval "$(tests/cluster/up.sh)"
# The user's own KUBECONFIG, else kind, else one native node; DYNALIGN_TEST_CLUSTER=kind or native names one. Idempotent:
# what runs is left alone, what died or was stopped is started.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# The consumer evaluates standard output: everything but the last line goes to standard error.
exec 3>&1 >&2

chosen=$(chosen_cluster)
case $chosen in
  given)
    kubectl=$(command -v kubectl || echo "$BIN/kubectl")
    "$kubectl" --request-timeout 20s get --raw /readyz >/dev/null ||
      { echo "the cluster that KUBECONFIG=$KUBECONFIG selects is not ready: correct it, or unset it to get a cluster of this machine"; exit 1; }
    selected=$KUBECONFIG ;;
  kind)
    "$HERE/kind/up.sh"
    selected=$KIND_KUBECONFIG ;;
  native)
    "$HERE/build.sh"
    "$HERE/policies.sh" build
    "$HERE/node.sh"
    selected=$NODE_KUBECONFIG ;;
esac
echo "export KUBECONFIG=$selected" >&3
