#!/bin/sh
# Runs while an image is built, in /src, a copy of the parts of the repository that it needs.
#   install.sh dependencies EXTRA   what dynalign[EXTRA] needs goes to /opt/venv, in the versions of requirements/cpu.txt
#   install.sh package EXTRA        dynalign itself goes to /opt/package, to be laid over /opt/venv, and its SBOM to /opt/sbom.json
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

dependencies() {
  case $1 in
    gpu)
      python3 -m venv --without-pip --system-site-packages /opt/venv
      wanted=trainer given='^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' ;;
    *)
      python3 -m venv --without-pip /opt/venv
      wanted=$1 given='^$' ;;
  esac
  $UV pip compile pyproject.toml --extra "$wanted" --constraint requirements/cpu.txt --python $PYTHON \
    --no-header --no-annotate --quiet -o /tmp/all.txt
  grep -vE "$given" /tmp/all.txt > /tmp/wanted.txt
  $UV pip install --python $PYTHON --quiet --no-deps --compile-bytecode -r /tmp/wanted.txt
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
