#!/bin/sh
# Every Go test, as events for tools/testsum: all with the race detector, then without it those packages that have
# other files under it, because their tests do less there or nothing. testsum counts a test that one of the runs
# skipped and another passed as passed, and knows no other that was skipped.
#
#   scripts/gotest.sh [go test flags]
set -eu
cd "$(dirname "$0")/.."

run() {
	# More at once than there are processors: many wait for processes, networks and clocks.
	go test -vet=off -count=1 -timeout 20m -parallel 4 -json "$@"
}

files='{{.ImportPath}} {{.GoFiles}} {{.TestGoFiles}} {{.XTestGoFiles}}'
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
go list -f "$files" ./... >"$lists/without"
go list -race -f "$files" ./... >"$lists/with"
other=$(diff "$lists/without" "$lists/with" | sed -n 's/^< \([^ ]*\) .*/\1/p')

# What takes longest begins first.
run -race -p 3 "$@" ./test/... ./internal/hostnet/... ./internal/encode/... ./...
if [ -n "$other" ]; then
	# shellcheck disable=SC2086 # one word a package
	run "$@" $other
fi
