#!/bin/sh
# fuzz.sh TIME: runs every fuzz target of every package for TIME. The go
# command fuzzes one target at a time, so they are listed first.
set -eu

time=${1:-10s}
go=${GO:-go}

packages=$("$go" list ./...)
for package in $packages; do
	listed=$("$go" test -list '^Fuzz' "$package")
	for target in $(echo "$listed" | grep '^Fuzz' || true); do
		echo "== $package $target"
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
	done
done
