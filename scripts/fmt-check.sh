#!/bin/sh
# Fails, naming the files, when one is not gofmt-clean.
set -eu

files=$(gofmt -l .)
[ -z "$files" ] && exit 0
echo "not gofmt-clean (make fmt):" >&2
echo "$files" >&2
exit 1
