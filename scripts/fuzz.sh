#!/bin/sh
# Runs every fuzz test of the module for the given time each.
#
#   scripts/fuzz.sh 20s
set -eu
cd "$(dirname "$0")/.."
time=${1:-20s}
grep -rl --include='*_test.go' '^func Fuzz' cmd internal test 2>/dev/null | xargs -r -n1 dirname | sort -u | while read -r dir; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go | while read -r name; do
		echo "== $dir $name $time"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$dir" </dev/null
	done
done
