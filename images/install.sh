#!/bin/sh
# Runs while an image is built, in /src, a copy of the parts of the repository that it needs.
#   install.sh wanted EXTRA         lists what dynalign[EXTRA] needs in /opt/wanted.txt, in the versions of requirements/{cpu,gpu}.txt
#   install.sh dependencies EXTRA   what /opt/wanted.txt lists goes to /opt/venv
#   install.sh package EXTRA        dynalign itself goes to /opt/package, to be laid over /opt/venv, and its SBOM to /opt/sbom.json
# The list is a file of its own, whose time is always the same: as long as it lists the same, the layer that is made from it
# is taken from the builder's cache, whatever else changes in pyproject.toml.
# `dependencies` leaves /opt/venv alone: it makes the image's own layer, which a copy from a stage would write twice more.
# EXTRA is operator, cpu or gpu. With gpu the base image brings vLLM, torch and CUDA, and only the rest is installed.
set -eu

UV=/opt/build/bin/uv
PYTHON=/opt/venv/bin/python
export UV_NO_CACHE=1 UV_HTTP_TIMEOUT=180 PIP_NO_CACHE_DIR=1

tools() {
  python3 -m venv /opt/build
  /opt/build/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
}

wanted() {
  case $1 in
    gpu) extras="trainer bundled" lock=gpu overrides=/dev/null given='^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' ;;
    cpu) extras="cpu bundled" lock=cpu overrides=requirements/cpu-overrides.txt given='^$' ;;
    operator) extras="operator tracing" lock=cpu overrides=requirements/cpu-overrides.txt given='^$' ;;
    *) extras=$1 lock=cpu overrides=requirements/cpu-overrides.txt given='^$' ;;
  esac
  # shellcheck disable=SC2086 # every extra is a word of its own
  $UV pip compile pyproject.toml $(printf ' --extra %s' $extras) --constraint "requirements/$lock.txt" --overrides "$overrides" \
    --python "$(command -v python3)" --no-header --no-annotate --quiet -o /tmp/all.txt
  grep -vE "$given" /tmp/all.txt > /opt/wanted.txt
  touch -d @0 /opt/wanted.txt
}

dependencies() {
  case $1 in
    gpu) python3 -m venv --without-pip --system-site-packages /opt/venv ;;
    *) python3 -m venv --without-pip /opt/venv ;;
  esac
  $UV pip install --python $PYTHON --quiet --no-deps --compile-bytecode -r /opt/wanted.txt
  rm -rf /opt/build /tmp/* /src/*
}

package() {
  $UV pip install --python $PYTHON --quiet --no-deps --compile-bytecode --prefix /opt/package .
  cp -a /opt/package/. /opt/venv/
  [ "$1" = operator ] || $PYTHON images/check.py "$1"
  /opt/build/bin/pip --disable-pip-version-check --python $PYTHON inspect > /opt/sbom.json 2>/dev/null
}

tools
"$1" "$2"
