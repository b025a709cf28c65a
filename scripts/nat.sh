#!/bin/sh
# nat.sh [-or-skip] [ARG...]: the tests of interop/nat, across routers of nftables. They
# need Linux and root, and make network namespaces of their own, which the kernel
# removes with them. Where that cannot be it says why, and fails; with -or-skip it
# does not fail.
set -eu

go=${GO:-go}
otherwise=1
if [ "${1:-}" = -or-skip ]; then
	otherwise=0
	shift
fi

cannot() {
	echo "nat.sh: interop/nat is not run: $1" >&2
	exit "$otherwise"
}

[ "$(uname -s)" = Linux ] || cannot "it needs the network namespaces of Linux"
[ "$(id -u)" = 0 ] || cannot "it needs root, for routers of its own: sudo make interop-nat"
PATH=$PATH:/usr/sbin:/sbin
export PATH
sh "$(dirname "$0")/need.sh" nft ip conntrack unshare || cannot "the tools above are missing"

for peer in baresip kamailio; do
	sh "$(dirname "$0")/need.sh" "$peer" 2>/dev/null || echo "nat.sh: without $peer, which cannot be installed: ITS TESTS ARE SKIPPED" >&2
done

# What the tests do first, in a network of its own.
probe='
	ip link add name probe type veth peer name other &&
	ip link add name switch type bridge &&
	nft "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade fully-random" &&
	conntrack -L'
said=$(unshare --net sh -c "$probe" 2>&1) || cannot "no router can be made here: $said"

exec "$go" test -count=1 -timeout 10m -parallel 16 ./interop/nat "$@" -args -nat
