#!/usr/bin/env bash
# Builds KWOK, which plays the kubelets of nodes that are not there, into $BIN unless it is there in this version, and prints
# the folder of the stages that come with it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
MODULE=sigs.k8s.io/kwok
VERSION=v0.8.0
mkdir -p "$BIN"
exec 9> "$BIN/.kwok.lock"
flock 9   # two callers build once

if [ "$(cat "$BIN/.kwok" 2>/dev/null)" != "$VERSION" ] || [ ! -x "$BIN/kwok" ]; then
  echo "building kwok" >&2
  CGO_ENABLED=0 GOBIN=$BIN go install "$MODULE/cmd/kwok@$VERSION" >&2
  echo "$VERSION" > "$BIN/.kwok"
fi
echo "$(go env GOMODCACHE)/$MODULE@$VERSION/kustomize/stage"
