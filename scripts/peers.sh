#!/bin/sh
# peers.sh [-or-skip] [ARG...]: the tests of interop/peers, against programs of others on the
# loopback interface. It installs what is missing where that can be; a program that cannot be
# installed is named, and its tests are skipped. Without any of the programs it fails; with
# -or-skip it does not. A run of everything, without arguments, writes docs/interop.md.
set -eu

go=${GO:-go}
otherwise=1
if [ "${1:-}" = -or-skip ]; then
	otherwise=0
	shift
fi

cannot() {
	echo "peers.sh: interop/peers IS NOT RUN: $1" >&2
	exit "$otherwise"
}

[ "$(uname -s)" = Linux ] || cannot "it needs Linux"
PATH=$PATH:/usr/sbin:/sbin
export PATH

found=
for peer in baresip kamailio linphonec janus chromium npm; do
	if sh "$(dirname "$0")/need.sh" "$peer"; then
		found="$found $peer"
	else
		echo "peers.sh: WITHOUT $peer, which cannot be installed: ITS TESTS ARE SKIPPED" >&2
	fi
done
[ -n "$found" ] || cannot "none of the programs is there"

if [ "$#" -eq 0 ] && [ "$otherwise" -eq 1 ]; then
	set -- -args -page ../../docs/interop.md
fi
exec "$go" test -tags interop -count=1 -timeout 14m -parallel 8 ./interop/peers "$@"
