#!/bin/sh
# Runs the benchmarks on bin/penstock; arguments go to bench/run.mjs.
set -eu
cd "$(dirname "$0")/.."
exec node bench/run.mjs "$@"
