# shellcheck shell=bash disable=SC2034
# Settings and functions of the scripts in this folder. Sourced, never run.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${DYNALIGN_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dynalign-tests}
BIN=$CACHE/bin                      # kube and its links (kubectl, etcd, kube-apiserver ...), coredns, helm: versions in kube/go.mod; kube-router: policies/go.mod
STATE=$CACHE/node                   # keys, etcd data, kubelet root, volumes, logs, pid files of the native node
NODE_KUBECONFIG=$STATE/admin.kubeconfig
CONTAINERD_ROOT=$CACHE/containerd   # images of the native node; they outlive its state

KIND_NODES=${DYNALIGN_TEST_KIND_NODES:-1}
KIND_CLUSTER=dynalign; [ "$KIND_NODES" = 1 ] || KIND_CLUSTER=dynalign-$KIND_NODES
KIND_WORK=$CACHE/kind               # what the node image is made of, volumes of the nodes, and below, for each cluster:
KIND_KUBECONFIG=$KIND_WORK/$KIND_CLUSTER.kubeconfig
KIND_MADE=$KIND_WORK/$KIND_CLUSTER.made   # the container that kind/up.sh made; no other is ever deleted
KIND_IMAGE_NAME=localhost/dynalign-kind-node
PATH=$PATH:$KIND_WORK/bin           # kind, where none is installed

NODE=dynalign-node
BRIDGE=dyncni0
POD_PREFIX=10.124                   # pods and node: $POD_PREFIX.0.0/16, node at .0.1
SERVICE_PREFIX=10.96                # services: $SERVICE_PREFIX.0.0/16
IP=$POD_PREFIX.0.1
API_PORT=6443
ETCD_PORT=12379
POLICIES_PORT=12381                 # health of what enforces NetworkPolicies
WORKLOAD_UID=1000                   # who the pods of a run are, and who owns the volumes

BASE_IMAGE=localhost/debian-python:test
DOCKER_BASE_IMAGE=${DYNALIGN_TEST_BASE_IMAGE:-python:3.12-slim}   # of builds with docker; the trainer's own default has CUDA
PAUSE_IMAGE=localhost/pause:test

PACKAGES=(containerd runc containernetworking-plugins iptables iproute2 openssl curl buildah mmdebstrap prometheus jq)

node_kubectl() { "$BIN/kubectl" --kubeconfig "$NODE_KUBECONFIG" "$@"; }
node_ctr() { ctr -a "$STATE/run/containerd.sock" -n k8s.io "$@"; }
docker_works() { docker info >/dev/null 2>&1; }

# kind's nodes are privileged. A daemon without CAP_SYS_RESOURCE needs a runtime that does not ask for it.
kind_can_run() {
  local capabilities
  capabilities=$(awk '/^CapBnd/ {print $2}' /proc/self/status)
  [ $((0x$capabilities >> 24 & 1)) = 1 ] || [ "$(docker info -f '{{.DefaultRuntime}}' 2>/dev/null)" != runc ]
}
kind_exists() { docker inspect "$KIND_CLUSTER-control-plane" >/dev/null 2>&1; }
kind_runs() { [ "$(docker inspect -f '{{.State.Running}}' "$KIND_CLUSTER-control-plane" 2>/dev/null)" = true ]; }
kind_is_ours() { [ -s "$KIND_MADE" ] && [ "$(docker inspect -f '{{.Id}}' "$KIND_CLUSTER-control-plane" 2>/dev/null)" = "$(cat "$KIND_MADE")" ]; }

# What up.sh gives: given (KUBECONFIG of the user's own), kind or native. DYNALIGN_TEST_CLUSTER chooses between the last two.
chosen_cluster() {
  case ${KUBECONFIG:-} in
    "") ;;
    "$NODE_KUBECONFIG") echo native; return ;;
    "$KIND_KUBECONFIG") echo kind; return ;;
    *) echo given; return ;;
  esac
  case ${DYNALIGN_TEST_CLUSTER:-} in
    kind | native) echo "$DYNALIGN_TEST_CLUSTER" ;;
    "") if docker_works && command -v kind >/dev/null && [[ $(command -v kind) != "$KIND_WORK"/* ]]; then echo kind; else echo native; fi ;;
    *) echo "DYNALIGN_TEST_CLUSTER is '$DYNALIGN_TEST_CLUSTER': write kind or native" >&2; return 1 ;;
  esac
}

# running NAME: true if the process that `start` started under NAME still runs (a reused pid does not count)
running() {
  local pid
  pid=$(cat "$STATE/run/$1.pid" 2>/dev/null) || return 1
  [ "$({ tr '\0' ' ' < "/proc/$pid/cmdline"; } 2>/dev/null)" = "$(cat "$STATE/run/$1.cmd" 2>/dev/null)" ]
}

put() { # FILE: standard input becomes the file at once. What reads it meanwhile sees the old or the new text, never half
  cat > "$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

until_ok() { # WHAT SECONDS COMMAND...: waits until COMMAND succeeds
  local what=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "$what is not ready; see ${LOGS:-$STATE/log}" >&2; exit 1; }
    sleep 0.1
  done
}

stop() { # NAME: SIGTERM, after ten seconds SIGKILL
  local pid
  if running "$1"; then
    pid=$(cat "$STATE/run/$1.pid")
    kill "$pid"
    for _ in $(seq 100); do running "$1" || break; sleep 0.1; done
    if running "$1"; then kill -9 "$pid"; fi
  fi
  rm -f "$STATE/run/$1".{pid,cmd}
}

# start NAME COMMAND...: starts COMMAND in its own session, through $AS if set, unless it runs; a changed command or binary
# means a restart.
start() {
  local name=$1 run=$STATE/run/$1; shift
  printf '%s ' "$@" > "$run.new"
  if running "$name" && cmp -s "$run.new" "$run.cmd" && [ "/proc/$(cat "$run.pid")/exe" -ef "$(command -v "$1")" ]; then
    rm "$run.new"
    return
  fi
  stop "$name"
  mv "$run.new" "$run.cmd"
  # shellcheck disable=SC2086 # AS is a command with its arguments
  setsid ${AS:-} "$@" >> "$STATE/log/$name.log" 2>&1 3>&- 9>&- < /dev/null &
  echo $! > "$run.pid"
}
