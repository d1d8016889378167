#!/usr/bin/env bash
# Builds what the native node and its tests need into $BIN, and installs the Debian packages that it needs (root).
# What is there in the right version is left alone: a changed source, version or compiler builds anew.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
mkdir -p "$BIN"
exec 9> "$BIN/.lock"
flock 9   # two callers build once

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}" >&2
  apt-get update -qq
  # --no-install-recommends, and no service may start: up.sh runs a containerd of its own.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive nice apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build() { # NAME KEY COMMAND...: runs COMMAND, which writes $BIN/NAME, unless KEY is the one it was built with
  local name=$1 key=$2 since=$SECONDS; shift 2
  if [ -x "$BIN/$name" ] && [ "$(cat "$BIN/.$name.key" 2>/dev/null)" = "$key" ]; then return 0; fi
  echo "building $name" >&2
  nice -n 10 "$@"
  echo "$key" > "$BIN/.$name.key"
  echo "built $name in $((SECONDS - since)) s" >&2
}

build_kube() {
  local v=k8s.io/component-base/version
  local version major minor
  version=$(go -C "$HERE/kube" list -m -f '{{.Version}}' k8s.io/kubernetes)
  IFS=. read -r major minor _ <<< "${version#v}"
  build kube "$(cat "$HERE"/kube/{go.mod,go.sum,main.go} | sha256sum | cut -c1-16) $(go env GOVERSION)" \
    env CGO_ENABLED=0 go build -C "$HERE/kube" -trimpath -tags providerless -o "$BIN/kube" \
    -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=$major -X $v.gitMinor=$minor" .
  for component in kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy etcd; do
    ln -sf kube "$BIN/$component"
  done
}

install_module() { # NAME PACKAGE@VERSION
  build "$1" "$2 $(go env GOVERSION)" env CGO_ENABLED=0 GOBIN="$BIN" go install -trimpath -ldflags "-s -w" "$2"
}

install_packages
build_kube
install_module coredns "github.com/coredns/coredns@$COREDNS_VERSION"
install_module helm "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
