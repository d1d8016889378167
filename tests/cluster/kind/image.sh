#!/usr/bin/env bash
# Builds a node image for kind where none can be pulled, prints its name: Debian with systemd, containerd and CNI plugins,
# Kubernetes as the native node has it, kubeadm, CoreDNS and the storage provisioner from their Go modules, the files of a
# node from kind's own. kindnetd is no Go module: pod-network.sh stands in for it. Root on Debian 12, and Docker.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
SOURCES=$HERE/kind
NODE_PACKAGES=systemd,containerd,runc,containernetworking-plugins,conntrack,iptables,nftables,iproute2,ethtool,socat,mount,kmod,pigz,e2fsprogs,ca-certificates,curl,jq,procps,hostname
POD_PACKAGES=iptables,iproute2
PATH_IN_IMAGE=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy)
mkdir -p "$KIND_WORK"
exec 5> "$KIND_WORK/.image.lock"
flock 5   # two callers build once

image=$KIND_IMAGE_NAME:$({ cat "$SOURCES"/{go.mod,coredns/main.go,pod-network.sh,image.sh,tools.sh} "$HERE/kube/go.mod"; echo "$NODE_PACKAGES"; } |
  sha256sum | cut -c1-12)
if docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; exit; fi
echo "building a node image for kind: $image" >&2
since=$SECONDS
stage=$(mktemp -d "$KIND_WORK/image.XXXXXX")
trap 'docker rm -f "dynalign-kind-build-$$" >/dev/null 2>&1 || true; rm -rf "$stage"' EXIT

# --- file systems and binaries, side by side --------------------------------------------------------------------------
file_system() { # NAME PACKAGES: $KIND_WORK/NAME.tar, kept for the next build
  [ "$(cat "$KIND_WORK/$1.key" 2>/dev/null)" != "$2" ] || return 0
  mmdebstrap --quiet --mode=root --variant=minbase --include="$2" --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$stage/$1.tar" >&2
  mv "$stage/$1.tar" "$KIND_WORK/$1.tar"
  echo "$2" > "$KIND_WORK/$1.key"
}
unpack() { # NAME FOLDER
  mkdir -p "$2"
  tar -C "$2" -x -f "$KIND_WORK/$1.tar" --exclude './dev/*' --exclude './var/lib/apt/lists/*' --exclude './var/cache/apt/*'
}
"$HERE/build.sh"   # the native node's Kubernetes, and mmdebstrap
{ file_system node-files "$NODE_PACKAGES"; file_system pod-files "$POD_PACKAGES"; } &
file_systems=$!
"$SOURCES/tools.sh"
wait "$file_systems"
version=$("$BIN/kubectl" version --client -o json | jq -r .clientVersion.gitVersion)
kind_sources=$(go -C "$SOURCES" list -m -f '{{.Dir}}' sigs.k8s.io/kind)

# --- the images of the control plane: one layer, a name and an entrypoint for each ------------------------------------
unpack pod-files "$stage/pod"
install -m 755 "$BIN/kube" "$KIND_WORK"/bin/{coredns,local-path-provisioner} "$SOURCES/pod-network.sh" "$stage/pod/usr/local/bin/"
CGO_ENABLED=0 go build -trimpath -ldflags=-s -o "$stage/pod/usr/local/bin/pause" "$HERE/pause/main.go"
for component in "${COMPONENTS[@]}" etcd kubectl; do ln -sf kube "$stage/pod/usr/local/bin/$component"; done
tar -C "$stage/pod" -c . | docker import - "$KIND_IMAGE_NAME-pods:$version" >/dev/null
rm -rf "$stage/pod"

names=()
name() { # IMAGE [ENTRYPOINT]
  printf 'FROM %s\nENV PATH=%s\nENTRYPOINT [%s]\n' "$KIND_IMAGE_NAME-pods:$version" "$PATH_IN_IMAGE" "${2:+\"/usr/local/bin/$2\"}" |
    docker build -q -t "$1" - >/dev/null
  names+=("$1")
}
for wanted in $("$KIND_WORK/bin/kubeadm" config images list --kubernetes-version "$version"); do
  case $wanted in
    */coredns:*) name "$wanted" coredns ;;
    */pause:*) name "$wanted" pause; pause=$wanted ;;
    *) name "$wanted" ;;
  esac
done
network=docker.io/kindest/kindnetd:stand-in provisioner=docker.io/kindest/local-path-provisioner:stand-in helper=docker.io/kindest/local-path-helper:stand-in
name "$network" pod-network.sh
name "$provisioner"
name "$helper"

# --- the node: Debian, kind's files, the units that kind enables ------------------------------------------------------
root=$stage/node files=$kind_sources/images/base/files
unpack node-files "$root"
chmod -R u+w "$root/etc"
install -d "$root"/kind/{bin,manifests} "$root"/etc/{containerd,default,sysctl.d,kubernetes/manifests,systemd/system/kubelet.service.d} "$root/opt/cni/bin"
install -m 755 "$files"/usr/local/bin/* "$root/usr/local/bin/"
install -m 755 "$files"/kind/bin/* "$root/kind/bin/"
install -m 644 "$files/etc/crictl.yaml" "$root/etc/"
install -m 644 "$files/etc/default/kubelet" "$root/etc/default/"
install -m 644 "$files"/etc/sysctl.d/* "$root/etc/sysctl.d/"
install -m 644 "$files"/etc/systemd/system/*.{service,slice} "$root/etc/systemd/system/"
install -m 644 "$files"/etc/systemd/system/kubelet.service.d/* "$root/etc/systemd/system/kubelet.service.d/"
# restrict_oom_score_adj: a host that is itself a container may not lower an OOM score.
sed -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' -e "s|sandbox_image = .*|sandbox_image = \"$pause\"|" \
  "$files/etc/containerd/config.toml" > "$root/etc/containerd/config.toml"
rm -f "$root"/lib/systemd/system/{multi-user,local-fs}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
  "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* "$root"/lib/systemd/system/basic.target.wants/* \
  "$root/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service"
echo ReadKMsg=no >> "$root/etc/systemd/journald.conf"
ln -sf /usr/lib/systemd/systemd "$root/sbin/init"
for binary in containerd ctr containerd-shim-runc-v2; do ln -sf "/usr/bin/$binary" "$root/usr/local/bin/$binary"; done
for plugin in "$root"/usr/lib/cni/*; do ln -sf "/usr/lib/cni/${plugin##*/}" "$root/opt/cni/bin/"; done
install -m 755 "$BIN/kube" "$KIND_WORK/bin/kubeadm" "$root/usr/bin/"
for component in kubelet kubectl; do ln -sf kube "$root/usr/bin/$component"; done
chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service >&2
chroot "$root" systemctl mask systemd-binfmt.service >&2
chroot "$root" ctr oci spec | jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
  > "$root/etc/containerd/cri-base.json"
echo "$version" > "$root/kind/version"

manifest() { # FILE CONSTANT: a manifest in kind's Go sources, with the images of this node
  awk -v name="$2" '$0 ~ "^const " name " = `" {on = 1; sub(/^[^`]*`/, "")} on {if ($0 ~ /^`$/) exit; print}' \
    "$kind_sources/pkg/build/nodeimage/$1" |
    sed -e "s|\` + kindnetdImage + \`|$network|" -e "s|\` + storageProvisionerImage + \`|$provisioner|" -e "s|\` + storageHelperImage + \`|$helper|"
}
manifest const_cni.go defaultCNIManifest > "$root/kind/manifests/default-cni.yaml"
manifest const_storage.go defaultStorageManifest > "$root/kind/manifests/default-storage.yaml"
[ "$(grep -c stand-in "$root"/kind/manifests/*.yaml | awk -F: '{n += $2} END {print n}')" -ge 3 ] || { echo "kind's manifests have another form than image.sh expects" >&2; exit 1; }
tar -C "$root" -c . | docker import - "$KIND_IMAGE_NAME-files:$version" >/dev/null
rm -rf "$root"

# --- the images into the node's containerd, as `kind build node-image` does -------------------------------------------
builder=dynalign-kind-build-$$
docker run -d --privileged --name "$builder" --entrypoint sleep "$KIND_IMAGE_NAME-files:$version" infinity >/dev/null
docker exec -d "$builder" containerd
until_ok "containerd in the node image" 30 docker exec "$builder" ctr version
docker save "${names[@]}" | docker exec -i "$builder" ctr -n k8s.io images import --all-platforms --no-unpack - >/dev/null
docker exec "$builder" sh -c 'kill $(pidof containerd); while pidof containerd >/dev/null; do sleep 0.1; done; rm -rf /run/containerd'
docker commit "$builder" "$KIND_IMAGE_NAME-filled:$version" >/dev/null
printf 'FROM %s\nENV container=docker\nSTOPSIGNAL SIGRTMIN+3\nENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]\n' "$KIND_IMAGE_NAME-filled:$version" |
  docker build -q -t "$image" - >/dev/null
docker rmi "${names[@]}" >/dev/null   # the node has them
echo "built it in $((SECONDS - since)) s" >&2
echo "$image"
