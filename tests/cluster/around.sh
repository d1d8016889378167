#!/usr/bin/env bash
# around.sh COMMAND...: runs COMMAND while the cluster and the images of its tests are made beside it, and stops afterwards
# what did not run before. Whoever needs one of them waits for it (the scripts lock).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
mkdir -p "$CACHE"
running kubelet && node_was_up=yes || node_was_up=no
kind_runs && kind_was_up=yes || kind_was_up=no

set -m   # a process group of its own
"$HERE/prepare.sh" > "$CACHE/prepare.log" 2>&1 < /dev/null &
preparation=$!
set +m
finish() {
  kill -- "-$preparation" 2>/dev/null || true   # what COMMAND needed is there
  wait "$preparation" || true
  [ "$node_was_up" = yes ] || "$HERE/down.sh" native >&2
  [ "$kind_was_up" = yes ] || "$HERE/down.sh" kind >&2
}
trap finish EXIT
echo "the cluster and its images are made beside the first tests: $CACHE/prepare.log" >&2
"$@"
