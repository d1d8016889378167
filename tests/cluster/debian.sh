#!/usr/bin/env bash
# debian.sh PACKAGE...: installs those Debian packages that are missing, as root; two callers take turns.
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
exec 8> /tmp/dynalign-tests-apt.lock
flock 8
echo "installing ${missing[*]}" >&2
apt-get update -qq
# --no-install-recommends, and no service may start: up.sh runs a containerd of its own.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
