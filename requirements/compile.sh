#!/usr/bin/env bash
# compile.sh cpu|gpu FILE: writes the exact versions of dynalign[EXTRA,bundled,dev] to FILE, for every platform and Python
# that pyproject.toml supports. Versions that FILE has already are kept where they still fit.
# compile.sh cpu|gpu FILE WHOLE: the same without dev, in the versions of the file WHOLE.
set -euo pipefail
cd "$(dirname "$0")/.."
overrides=()
[ "$1" = gpu ] || overrides=(--overrides requirements/cpu-overrides.txt)
more=(--extra dev)
[ $# = 2 ] || more=(--constraint "$3")
"${UV:-.venv/bin/uv}" pip compile pyproject.toml --extra "$1" --extra bundled "${more[@]}" --universal --python-version 3.11 \
  "${overrides[@]}" --no-header --no-annotate --quiet -o "$2"
sed -i "/sys_platform == 'never'/d" "$2"
