#!/bin/sh
# need.sh TOOL...: makes sure that each tool is there. Debian packages are
# installed where apt-get can be used; elsewhere it says what to install.
set -eu

fail() {
	echo "need.sh: $1" >&2
	exit 1
}

# apt_install PACKAGE...: returns 1 where apt-get is absent or not ours to run.
apt_install() {
	command -v apt-get >/dev/null 2>&1 || return 1
	as_root=
	if [ "$(id -u)" -ne 0 ]; then
		sudo -n true 2>/dev/null || return 1
		as_root="sudo -n"
	fi
	echo "need.sh: installing $*" >&2
	# shellcheck disable=SC2086 # as_root is empty or two words
	{
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 update &&
			$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 \
				install -y --no-install-recommends "$@"
	} </dev/null >&2
}

go=${GO:-go}

# An older Go either fetches what go.mod asks for, and then says that it is that
# one, or fails later in the words of each package it cannot read.
need_go() {
	command -v "$go" >/dev/null 2>&1 ||
		fail "Go is missing: install a current Go release and put its bin directory on PATH"
	oldest=$(awk '$1 == "go" { print $2; exit }' "$(dirname "$0")/../go.mod")
	have=$("$go" env GOVERSION 2>/dev/null) || have=
	if [ -z "$have" ] || older "${have#go}" "$oldest"; then
		fail "Go $oldest or later is needed and this is ${have:-an older one}: install a current release, or let go fetch it (GOTOOLCHAIN=auto)"
	fi
}

# older VERSION OLDEST: compares major, minor and patch. A release candidate
# counts as its release, a development version as new.
older() {
	awk -v have="$1" -v oldest="$2" 'BEGIN {
		if (have ~ /^devel/) exit 1
		split(have, a, /[^0-9]+/); split(oldest, b, /[^0-9]+/)
		for (i = 1; i <= 3; i++) if (a[i] + 0 != b[i] + 0) exit a[i] + 0 > b[i] + 0
		exit 1
	}'
}

# The race detector needs cgo, and cgo a C compiler with the C library's headers.
need_gcc() {
	compiler=$("$go" env CC | cut -d ' ' -f 1)
	command -v "$compiler" >/dev/null 2>&1 && return
	apt_install gcc libc6-dev && command -v "$compiler" >/dev/null 2>&1 && return
	fail "'$compiler' is missing: go test -race needs a C compiler (Debian: gcc and libc6-dev; Alpine: gcc and musl-dev; macOS: xcode-select --install)"
}

need_sipp() {
	command -v sipp >/dev/null 2>&1 && return
	apt_install sip-tester && command -v sipp >/dev/null 2>&1 && return
	fail "'sipp' 3.6 or later is missing: install it (Debian and Ubuntu: sip-tester; Fedora, macOS Homebrew: sipp)"
}

need_redis() {
	command -v redis-server >/dev/null 2>&1 && return
	apt_install redis-server && command -v redis-server >/dev/null 2>&1 ||
		fail "'redis-server' 6 or later is missing: install it (Debian and Ubuntu: redis-server; Fedora, macOS Homebrew: redis)"
	stop_service redis-server
}

need_janus() {
	command -v janus >/dev/null 2>&1 && return
	need_tool janus janus
	stop_service janus
}

# stop_service NAME: a package of Debian's has started a server of its own, which nobody has
# asked for.
stop_service() {
	echo "need.sh: stopping the service that the package $1 has started" >&2
	if command -v invoke-rc.d >/dev/null 2>&1; then
		$as_root invoke-rc.d "$1" stop >&2 || true
	fi
}

# need_tool COMMAND PACKAGE: a command, and the package of Debian's that has it.
need_tool() {
	command -v "$1" >/dev/null 2>&1 && return
	apt_install "$2" && command -v "$1" >/dev/null 2>&1 && return
	fail "'$1' is missing: install it (Debian and Ubuntu: $2)"
}

# The modules of Debian's kamailio are packages of their own.
need_kamailio() {
	set -- kamailio kamailio-tls-modules kamailio-websocket-modules
	has_kamailio && return
	apt_install "$@" && has_kamailio && return
	fail "'kamailio' or a module of its is missing: install it (Debian and Ubuntu: $*)"
}

has_kamailio() {
	command -v kamailio >/dev/null 2>&1 &&
		ls /usr/lib*/*/kamailio/modules/tls.so /usr/lib*/*/kamailio/modules/websocket.so >/dev/null 2>&1
}

for tool in "$@"; do
	case $tool in
	go) need_go ;;
	gcc) need_gcc ;;
	sipp) need_sipp ;;
	redis-server) need_redis ;;
	nft) need_tool nft nftables ;;
	ip) need_tool ip iproute2 ;;
	conntrack) need_tool conntrack conntrack ;;
	kamailio) need_kamailio ;;
	baresip) need_tool baresip baresip-core ;;
	janus) need_janus ;;
	linphonec) need_tool linphonec linphone-cli ;;
	chromium) need_tool chromium chromium ;;
	npm) need_tool npm npm ;;
	unshare) need_tool unshare util-linux ;;
	*) fail "do not know how to provide '$tool'" ;;
	esac
done
