#!/bin/sh
# rename.sh MODULE: replaces this module's path by MODULE in go.mod, in every
# import and in the pages. Running it again with the same MODULE changes nothing.
set -eu

new=${1:-}
go=${GO:-go}

if ! printf '%s\n' "$new" | grep -Eq '^[A-Za-z0-9][A-Za-z0-9_.~-]*(/[A-Za-z0-9_.~-]+)*$'; then
	echo "rename.sh: not a module path: '$new' (usage: make rename MODULE=example.org/you/dialog)" >&2
	exit 2
fi
old=$("$go" list -m)
[ "$old" = "$new" ] && exit 0

# Only whole path elements are replaced: a/dialog in "a/dialog/x", not in
# "a/dialogs". Two passes, because two neighbours share the character between
# them; through a mark, because the new path may contain the old one.
escaped=$(printf '%s\n' "$old" | sed 's/[.]/\\./g')
mark="s#(^|[^A-Za-z0-9_.~-])$escaped([^A-Za-z0-9_~-]|\$)#\\1@MODULE@\\2#g"
files=$(grep -rlIF --exclude-dir=.git -e "$old" .)
changed=$(mktemp)
trap 'rm -f "$changed"' EXIT
printf '%s\n' "$files" | while IFS= read -r file; do
	sed -E -e "$mark" -e "$mark" -e "s#@MODULE@#$new#g" "$file" >"$changed"
	cat "$changed" >"$file"
done
gofmt -w . # import blocks are sorted by path
"$go" mod edit -module "$new"
echo "module is now $new"
