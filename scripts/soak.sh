#!/usr/bin/env bash
# Runs the long forms of the trust tests, for hours, and writes report.md and report.json into .test-cache/soak.
# Takes the arguments of tests/trust/soak.py: --size ci for minutes, --only NAME, --seed N, --out DIRECTORY.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment
need_engine
need_image
need_test_images
rm -rf "$work" # exec runs no traps
exec "$python" -m tests.trust.soak "$@"
