#!/usr/bin/env bash
# Measures podkit side by side with the plain Docker SDK. Takes the arguments of tests/benchmarks.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment
need_engine
need_image
rm -rf "$work" # exec runs no traps
exec "$python" -m tests.benchmarks "$@"
