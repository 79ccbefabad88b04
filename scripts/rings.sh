#!/bin/sh
# Fails when a package of internal/ is not named in .golangci.yml, so that no new one escapes the import rules.
set -eu
cd "$(dirname "$0")/.."
status=0
for dir in internal/*/; do
	name=$(basename "$dir")
	find "$dir" -name '*.go' | grep -q . || continue
	if ! grep -q "internal/$name\b" .golangci.yml; then
		echo ".golangci.yml: no import rule names internal/$name; add it to its ring (ARCHITECTURE.md)" >&2
		status=1
	fi
done
exit $status
