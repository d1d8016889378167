#!/usr/bin/env bash
# Builds kind, kubeadm, CoreDNS with kubeadm's plugins and the storage provisioner into $KIND_WORK/bin. The module shares its
# versions, and so what is compiled, with ../kube. With `kind` as its argument it builds that alone.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
mkdir -p "$KIND_WORK/bin"
exec 4> "$KIND_WORK/.tools.lock"
flock 4   # two callers build once
wanted=${1:-all}
key="$(cat "$HERE"/kind/{go.mod,coredns/main.go,tools.sh} | sha256sum | cut -c1-16) $(go env GOVERSION)"
if [ "$(cat "$KIND_WORK/.$wanted.key" 2>/dev/null)" = "$key" ]; then exit 0; fi
v=k8s.io/component-base/version
version=$(go -C "$HERE/kind" list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<< "${version#v}"
packages=(sigs.k8s.io/kind)
[ "$wanted" != all ] || packages+=(./coredns k8s.io/kubernetes/cmd/kubeadm github.com/rancher/local-path-provisioner)
echo "building ${packages[*]##*/}" >&2
CGO_ENABLED=0 go build -C "$HERE/kind" -trimpath -tags providerless -gcflags=all=-dwarf=false -o "$KIND_WORK/bin/" \
  -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=$major -X $v.gitMinor=$minor" "${packages[@]}"
echo "$key" > "$KIND_WORK/.$wanted.key"
