#!/usr/bin/env bash
# policies.sh build|clean: what enforces NetworkPolicies on the native node, kube-router's controller of them and no more of it.
#   build  kube-router into $BIN from its Go module (policies/go.mod, whose Kubernetes is that of kube/go.mod), and Debian's
#          ipset (root)
#   clean  takes its chains and sets out of this host's packet filter
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

build() {
  local key since=$SECONDS
  mkdir -p "$BIN"
  exec 9> "$BIN/.policies.lock"
  flock 9   # two callers build once
  key="$(cat "$HERE"/policies/{go.mod,go.sum} | sha256sum | cut -c1-16) $(go env GOVERSION)"
  if [ "$(cat "$BIN/.policies.key" 2>/dev/null)" != "$key" ]; then
    echo "building kube-router" >&2
    CGO_ENABLED=0 go build -C "$HERE/policies" -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" -o "$BIN/" \
      github.com/cloudnativelabs/kube-router/v2/cmd/kube-router
    echo "$key" > "$BIN/.policies.key"
    echo "built it in $((SECONDS - since)) s" >&2
  fi
  "$HERE/debian.sh" ipset
}

# In one transaction: no packet meets half of the rules.
clean() {
  local rules ours='KUBE-ROUTER-(INPUT|FORWARD|OUTPUT)|KUBE-POD-FW-[A-Z0-9]+|KUBE-NWPLCY-[A-Z0-9]+'
  command -v iptables-save >/dev/null || return 0
  rules=$(iptables-save -t filter | grep -E "$ours" || true)
  if [ -n "$rules" ]; then
    { echo '*filter'
      grep -E '^-A (INPUT|FORWARD|OUTPUT) ' <<< "$rules" | sed 's/^-A/-D/' || true
      sed -nE "s/^:($ours) .*/-F \1/p" <<< "$rules"
      sed -nE "s/^:($ours) .*/-X \1/p" <<< "$rules"
      echo COMMIT
    } | iptables-restore -w --noflush
  fi
  command -v ipset >/dev/null || return 0
  { ipset list -n | grep -E '^(inet6:)?KUBE-(SRC|DST)-' || true; } | xargs -rn1 ipset destroy
}

case ${1:-} in
  build) build ;;
  clean) clean ;;
  *) sed -n '2,5s/^# *//p' "$0" >&2; exit 2 ;;
esac
