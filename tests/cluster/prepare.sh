#!/usr/bin/env bash
# Makes what the tests on a cluster need: the cluster, and this tree's images in it, but for those that variables name.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
eval "$("$HERE/up.sh")"
for image in operator trainer scripted-stage; do
  variable=DYNALIGN_TEST_$(tr a-z- A-Z_ <<< "$image")_IMAGE
  [ -n "${!variable:-}" ] || "$HERE/images.sh" give "$image" >/dev/null
done
