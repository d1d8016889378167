#!/usr/bin/env bash
# compile.sh cpu|gpu FILE: writes the exact versions of dynalign[EXTRA,dev] to FILE, for every platform and Python that
# pyproject.toml supports. Versions that FILE has already are kept where they still fit.
set -euo pipefail
cd "$(dirname "$0")/.."
overrides=()
[ "$1" = gpu ] || overrides=(--overrides requirements/cpu-overrides.txt)
"${UV:-.venv/bin/uv}" pip compile pyproject.toml --extra "$1" --extra dev --universal --python-version 3.11 \
  "${overrides[@]}" --no-header --no-annotate --quiet -o "$2"
sed -i "/sys_platform == 'never'/d" "$2"
