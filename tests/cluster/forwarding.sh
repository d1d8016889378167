#!/usr/bin/env bash
# forwarding.sh allow|forbid BRIDGE: lets packets from and to the pods of a bridge through the chain FORWARD, or no more.
# Docker sets that chain's policy to DROP when it starts. Where bridged packets pass iptables too, pods then reach neither
# each other nor anything else, and what waits for them hangs.
set -euo pipefail
bridge=$2
for direction in -i -o; do
  rule=("$direction" "$bridge" -m comment --comment "pods of dynalign's test node" -j ACCEPT)
  case $1 in
    allow) iptables -w -C FORWARD "${rule[@]}" 2>/dev/null || iptables -w -I FORWARD 1 "${rule[@]}" ||
      { echo "iptables cannot let the packets of pods through: allow forwarding from and to $bridge" >&2; exit 1; } ;;
    forbid) while iptables -w -D FORWARD "${rule[@]}" 2>/dev/null; do :; done ;;
    *) sed -n '2s/^# *//p' "$0" >&2; exit 2 ;;
  esac
done
