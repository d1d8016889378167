#!/usr/bin/env bash
# Gives a working cluster and prints the line that selects it: eval "$(tests/cluster/up.sh)"
# The user's own KUBECONFIG, else kind, else one native node. Idempotent: what runs is left alone, what died is started.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# The consumer evaluates standard output: everything but the last line goes to standard error.
exec 3>&1 >&2

if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$NODE_KUBECONFIG" ] && [ "$KUBECONFIG" != "$KIND_KUBECONFIG" ]; then
  kubectl=$(command -v kubectl || echo "$BIN/kubectl")
  "$kubectl" --request-timeout 20s get --raw /readyz >/dev/null ||
    { echo "the cluster that KUBECONFIG=$KUBECONFIG selects is not ready: correct it, or unset it to get a cluster of this machine"; exit 1; }
  selected=$KUBECONFIG
elif docker_works && command -v kind >/dev/null; then
  kind_runs || "$HERE/kind.sh"
  selected=$KIND_KUBECONFIG
else
  "$HERE/build.sh"
  "$HERE/node.sh"
  selected=$NODE_KUBECONFIG
fi
echo "export KUBECONFIG=$selected" >&3
