#!/usr/bin/env bash
# Builds images without a registry and gives them to the cluster; every one is called localhost/NAME:test.
#   images.sh base                                  the base: Debian with Python, as BASE_IMAGE of every build
#   images.sh give operator|trainer|scripted-stage  build this tree's dynalign-operator, ... and give it to the cluster;
#     prints its reference. DYNALIGN_TEST_REGISTRY=HOST/PATH pushes it there; DYNALIGN_TEST_LOAD_COMMAND is called with it
#   images.sh build NAME DOCKERFILE CONTEXT [ARG..] with buildah (no daemon) where it is installed or root can, else with docker
#   images.sh load NAME | ARCHIVE.tar               into containerd of the node, or into kind; pause is built when missing
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
export BUILDAH_ISOLATION=chroot
BASE_PACKAGES=python3,python3-venv,python3-pip,libnuma1,ca-certificates
mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/images.XXXXXX")
trap 'rm -rf "$work"' EXIT

buildah_() { buildah --root "$CACHE/buildah" --runroot "$CACHE/buildah-run" --storage-driver overlay "$@"; }
image_id() { buildah_ inspect --type image --format '{{.FromImageID}}' "$1" 2>/dev/null; }
# kind takes either builder's images; its users need neither root nor Debian.
uses_docker() { [ "$(chosen_cluster)" = kind ] && { ! command -v buildah >/dev/null || [ "$(id -u)" != 0 ]; }; }

commit_from_scratch() { # IMAGE SOURCE TARGET [CONFIG...]: SOURCE, unpacked if it is an archive, at TARGET
  local image=$1 source=$2 target=$3 container; shift 3
  container=$(buildah_ from scratch)
  buildah_ add -q "$container" "$source" "$target" >/dev/null
  buildah_ config "$@" "$container"
  buildah_ commit -q "$container" "$image" >/dev/null
  buildah_ rm "$container" >/dev/null
}

build_pause() {
  [ -z "$(image_id "$PAUSE_IMAGE")" ] || return 0
  CGO_ENABLED=0 go build -trimpath -ldflags=-s -o "$work/pause" "$HERE/pause/main.go"
  commit_from_scratch "$PAUSE_IMAGE" "$work/pause" /pause --entrypoint '["/pause"]' --user 65535:65535
}

build_base() {
  local suite key
  if uses_docker; then
    docker image inspect "$DOCKER_BASE_IMAGE" >/dev/null 2>&1 || docker pull -q "$DOCKER_BASE_IMAGE" >&2
    docker tag "$DOCKER_BASE_IMAGE" "$BASE_IMAGE"
    return
  fi
  exec 6> "$CACHE/.base.lock"
  flock 6   # two callers build once
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  key="$suite $BASE_PACKAGES"
  if [ -n "$(image_id "$BASE_IMAGE")" ] && [ "$(cat "$CACHE/.base.key" 2>/dev/null)" = "$key" ]; then exec 6>&-; return 0; fi
  mmdebstrap --quiet --mode=root --variant=minbase --include="$BASE_PACKAGES" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' "$suite" "$work/base.tar"
  commit_from_scratch "$BASE_IMAGE" "$work/base.tar" / --cmd '["/bin/bash"]'
  echo "$key" > "$CACHE/.base.key"
  exec 6>&-
}

# The packages of a build come from where this host gets them: indexes, links and certificates are mounted, not copied.
host_package_settings() { # prints buildah's options
  local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} folder
  { echo "[global]"
    python3 -m pip config list 2>/dev/null | awk '
      match($0, /\.(index-url|extra-index-url|find-links|trusted-host|timeout|proxy)=/) {
        key = substr($0, RSTART + 1, RLENGTH - 2); value = substr($0, RSTART + RLENGTH)
        gsub(/^\047|\047$/, "", value); gsub(/\\n/, "\n  ", value)
        if (!seen[key]++) print key " = " value
      }'
  } > "$work/pip.conf"
  { echo "native-tls = true"
    sed -n 's/^index-url = \(.*\)/index-url = "\1"/p' "$work/pip.conf"
  } > "$work/uv.toml"
  echo "--volume=$work/pip.conf:/etc/pip.conf:ro"
  echo "--volume=$work/uv.toml:/etc/uv/uv.toml:ro"
  if [ -f "$certificates" ]; then echo "--volume=$certificates:/etc/ssl/certs/ca-certificates.crt:ro"; fi
  sed -n 's/^find-links = //p' "$work/pip.conf" | while read -r folder; do
    if [ -d "$folder" ]; then echo "--volume=$folder:$folder:ro"; fi
  done
}

build() { # NAME DOCKERFILE CONTEXT [ARG...]
  local name=$1 dockerfile=$2 context=$3 options; shift 3
  if uses_docker; then docker build --build-arg "BASE_IMAGE=$DOCKER_BASE_IMAGE" -t "localhost/$name:test" -f "$dockerfile" "$@" "$context"; return; fi
  build_base
  mapfile -t options < <(host_package_settings)
  buildah_ build --layers --build-arg "BASE_IMAGE=$BASE_IMAGE" "${options[@]}" -t "localhost/$name:test" -f "$dockerfile" "$@" "$context"
}

# What `kind load` does, without an archive on the disk: the images are large, and a node's own copy is the only one needed.
load_into_kind() { # NAME | ARCHIVE
  local image=localhost/$1:test mark=/kind/loaded-$1 id node
  if [ -f "$1" ]; then kind load image-archive --name "$KIND_CLUSTER" "$1"; return; fi
  exec 8> "$KIND_WORK/.load.lock"
  flock 8   # two callers load once
  if uses_docker; then id=$(docker image inspect -f '{{.Id}}' "$image"); else id=$(image_id "$image"); fi ||
    { echo "no image $image: build it first" >&2; exit 1; }
  for node in $(kind get nodes --name "$KIND_CLUSTER"); do
    if [ "$(docker exec "$node" cat "$mark" 2>/dev/null)" = "$id" ]; then continue; fi
    save "$image" | docker exec -i "$node" ctr -n k8s.io images import --all-platforms --digests --snapshotter overlayfs - >/dev/null
    docker exec "$node" sh -c "echo $id > $mark"
  done
}

save() { # IMAGE: its archive on standard output
  if uses_docker; then docker save "$1"; return; fi
  mkfifo "$work/archive"
  buildah_ push -q "$1" "docker-archive:$work/archive:$1" >&2 &
  cat "$work/archive"
  wait $!
  rm "$work/archive"
}

# buildah mounts its folder onto itself, and no link can lead out of a mount: both sides are seen through one of its own.
link() { # FOLDER TARGET, both in $CACHE: TARGET gets FOLDER's tree with the same files
  mkdir -p "$work/cache"
  # shellcheck disable=SC2016 # the inner shell expands them
  unshare --mount sh -c 'mount --bind "$1" "$2" && cp -al "$2/${3#"$1"}/." "$2/${4#"$1"}"' - "$CACHE" "$work/cache" "$1" "$2"
}

# No layer is copied: containerd gets the manifest, the configuration and, for each layer, a snapshot whose files are hard
# links to buildah's. Neither side changes a file of a layer. The content store lacks the layers themselves, so such an image
# cannot be exported or pushed. Snapshots go with the image: its configuration refers to the last one.
link_into_node() { # IMAGE ID
  local image=$1 id=$2 oci=$work/oci store=$CACHE/buildah digest top layer diff chain="" chains=() parent folder
  mkdir -p "$oci/blobs/sha256"
  echo '{"imageLayoutVersion": "1.0.0"}' > "$oci/oci-layout"
  printf %s "$(buildah_ inspect --type image --format '{{.Config}}' "$image")" > "$oci/blobs/sha256/$id"
  printf %s "$(buildah_ inspect --type image --format '{{.Manifest}}' "$image")" > "$oci/manifest"
  digest=$(sha256sum "$oci/manifest" | cut -d' ' -f1)
  jq -n --arg image "$image" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$oci/manifest")" '
    {schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", $digest, $size,
      annotations: {"io.containerd.image.name": $image}}]}' > "$oci/index.json"
  mv "$oci/manifest" "$oci/blobs/sha256/$digest"

  top=$(jq -r --arg id "$id" '.[] | select(.id == $id).layer' "$store/overlay-images/images.json")
  while read -r layer diff; do
    parent=$chain
    chain=$diff
    if [ -n "$parent" ]; then chain=sha256:$(printf %s "$parent $diff" | sha256sum | cut -d' ' -f1); fi
    chains+=("$chain")
    if node_ctr snapshots info "$chain" >/dev/null 2>&1; then continue; fi
    node_ctr snapshots rm loading 2>/dev/null || true   # of a load that was cut off
    # shellcheck disable=SC2086 # the first layer has no parent
    node_ctr snapshots prepare loading $parent >/dev/null
    folder=$(node_ctr snapshots mounts / loading | grep -oE "[^ =,:]+/snapshots/[0-9]+/fs" | head -1)
    link "$store/overlay/$layer/diff" "$folder"
    node_ctr snapshots commit "$chain" loading
  done < <(jq -r --arg top "$top" 'INDEX(.id) as $layers | [$top | recurse($layers[.].parent; . != null)] | reverse[]
    | "\(.) \($layers[.]."diff-digest")"' "$store/overlay-layers/layers.json")

  tar -C "$oci" -c . | node_ctr images import --no-unpack - >/dev/null
  node_ctr content label "sha256:$id" "containerd.io/gc.ref.snapshot.overlayfs=$chain" >/dev/null
  # ctr marked what it made as in use for ever.
  for chain in "${chains[@]}"; do node_ctr snapshots label "$chain" containerd.io/gc.root= >/dev/null; done
}

load_into_node() { # NAME | ARCHIVE
  if [ -f "$1" ]; then node_ctr images import "$1" >/dev/null; return; fi
  local image=localhost/$1:test mark=$CONTAINERD_ROOT/loaded-$1 id there
  exec 8> "$CACHE/.load.lock"
  flock 8   # two callers load once
  [ "$1" != pause ] || build_pause
  id=$(image_id "$image") || { echo "no image $image: build it first" >&2; exit 1; }
  there=$(node_ctr images ls -q "name==$image" 2>/dev/null || true)
  if [ -n "$there" ] && [ "$(cat "$mark" 2>/dev/null)" = "$id" ]; then return 0; fi
  link_into_node "$image" "$id"
  echo "$id" > "$mark"
}

load() { # NAME | ARCHIVE
  local chosen
  chosen=$(chosen_cluster)
  if [ "$chosen" = kind ] && kind_runs; then load_into_kind "$1"
  elif [ "$chosen" = native ] && running containerd; then load_into_node "$1"
  else
    echo "no cluster of this folder runs: start one with up.sh, or name in DYNALIGN_TEST_REGISTRY a registry that your" \
      "cluster pulls from, or in DYNALIGN_TEST_LOAD_COMMAND a command that gives it an image" >&2
    exit 1
  fi
}

push() { # NAME: into DYNALIGN_TEST_REGISTRY; prints the reference, whose tag is the content's
  local image=localhost/$1:test id target
  if uses_docker; then
    id=$(docker image inspect --format '{{.Id}}' "$image")
    target=$DYNALIGN_TEST_REGISTRY/$1:${id:7:12}
    docker tag "$image" "$target" && docker push -q "$target" >&2
  else
    id=$(image_id "$image")
    target=$DYNALIGN_TEST_REGISTRY/$1:${id:0:12}
    # shellcheck disable=SC2086 # options, if any
    buildah_ push -q ${DYNALIGN_TEST_PUSH_OPTIONS:-} "$image" "docker://$target" >&2
  fi
  echo "$target"
}

give() { # operator | trainer | scripted-stage: what the tests and the benchmarks run; prints the reference for a pod
  local root name=dynalign-$1
  root=$(cd "$HERE/../.." && pwd)
  exec 7> "$CACHE/.give-$1.lock"
  flock 7   # two callers build once
  case $1 in
    operator) build "$name" "$root/images/$1/Dockerfile" "$root" >&2 ;;
    trainer) build "$name" "$root/images/$1/Dockerfile" "$root" --build-arg FLAVOUR=cpu >&2 ;;
    scripted-stage) name=$1; build "$name" "$root/lab/scripted_stage/Dockerfile" "$root/lab/scripted_stage" >&2 ;;
    *) echo "there is no image '$1': operator, trainer or scripted-stage" >&2; exit 2 ;;
  esac
  if [ -n "${DYNALIGN_TEST_REGISTRY:-}" ]; then push "$name"; return; fi
  if [ -n "${DYNALIGN_TEST_LOAD_COMMAND:-}" ]; then $DYNALIGN_TEST_LOAD_COMMAND "localhost/$name:test" >&2; else load "$name" >&2; fi
  echo "localhost/$name:test"
}

case ${1:-} in
  base) build_base ;;
  build) shift; build "$@" ;;
  give) give "${2:-}" ;;
  load) load "$2" ;;
  *) sed -n '2,7s/^# *//p' "$0" >&2; exit 2 ;;
esac
