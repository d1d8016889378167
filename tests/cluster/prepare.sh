#!/usr/bin/env bash
# Makes what the tests on a cluster need: the cluster, and this tree's images in it, but for those that variables name. Where
# Docker is, kind's cluster for the tests that choose it comes after it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
eval "$("$HERE/up.sh")"
give() { # IMAGE...
  local image variable
  for image in "$@"; do
    variable=DYNALIGN_TEST_$(tr a-z- A-Z_ <<< "$image")_IMAGE
    [ -n "${!variable:-}" ] || "$HERE/images.sh" give "$image" >/dev/null
  done
}
chosen=$(chosen_cluster)
give operator scripted-stage
[ "$chosen" = kind ] && [ "$KIND_NODES" != 1 ] || give trainer   # 14 GB on every node of kind
if [ "$chosen" = native ] && [ -z "${DYNALIGN_TEST_CLUSTER:-}" ] && docker_works && kind_can_run; then
  unset KUBECONFIG
  export DYNALIGN_TEST_CLUSTER=kind
  "$HERE/up.sh"
  give operator scripted-stage
fi
