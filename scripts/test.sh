#!/usr/bin/env bash
# Runs the tests on a real engine, with podkit's built wheel in a container of its own beside those that it makes.
#
#   ./scripts/test.sh [--local] [pytest arguments]    (without arguments: -n 4, and tests/trust/engine afterwards)
#
# --local runs them right here instead, on the working tree. The tests of tests/trust/engine always are: they start an
# engine of their own, which takes root and dockerd. What is missing is installed first, as install.sh does.
# Gives back pytest's exit code, and cleans up whatever happens.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"

local=no
case ${1:-} in
  --local) local=yes && shift ;;
  -h | --help) usage ;;
esac

need_environment
need_engine
need_image
need_test_images
runner=''
[ $local = yes ] || need_runner

rm -rf "$work" # exec runs no traps
exec "$python" scripts/_run_tests.py "$runner" "$@"
