#!/usr/bin/env bash
# Builds what the native node and its tests need into $BIN, and installs the Debian packages that it needs (root).
# What is there in the right version is left alone: a changed source, version or compiler builds anew.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
mkdir -p "$BIN"
exec 9> "$BIN/.lock"
flock 9   # two callers build once

# One command for all three, from one module: what they share is most of it, and is compiled once. The compiler leaves out
# DWARF, which the linker would drop anyway (10 % of the time).
build() {
  local v=k8s.io/component-base/version flags=(-trimpath -tags providerless -gcflags=all=-dwarf=false) since=$SECONDS
  local key version major minor component
  key="$({ cat "$HERE"/kube/{go.mod,go.sum,main.go,coredns/main.go}; echo "${flags[*]}"; } | sha256sum | cut -c1-16) $(go env GOVERSION)"
  if [ "$(cat "$BIN/.key" 2>/dev/null)" = "$key" ]; then return 0; fi
  echo "building kube, coredns and helm" >&2
  version=$(go -C "$HERE/kube" list -m -f '{{.Version}}' k8s.io/kubernetes)
  IFS=. read -r major minor _ <<< "${version#v}"
  CGO_ENABLED=0 go build -C "$HERE/kube" "${flags[@]}" -o "$BIN/" \
    -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=$major -X $v.gitMinor=$minor" . ./coredns helm.sh/helm/v3/cmd/helm
  for component in kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy etcd; do
    ln -sf kube "$BIN/$component"
  done
  echo "$key" > "$BIN/.key"
  echo "built them in $((SECONDS - since)) s" >&2
}

"$HERE/debian.sh" "${PACKAGES[@]}" &   # Debian's downloads while the compiler runs
packages=$!
build
wait "$packages"
