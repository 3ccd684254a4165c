#!/usr/bin/env bash
# Renews the lock files from the ranges in pyproject.toml: the version of each package that the scripts install, and
# the digests of its files. What is locked stays while it fits.
#
#   ./scripts/lock.sh [--upgrade]
#
# --upgrade takes the newest version of everything instead.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"

upgrade=''
case ${1:-} in
  '') ;;
  --upgrade) upgrade=--upgrade ;;
  -h | --help) usage ;;
  *) usage 2 >&2 ;;
esac

need_venv
uv=$(command -v uv) || {
  step "Fetching uv, for this once" "$python" -m pip install --progress-bar off --target "$work/uv" uv
  uv=$work/uv/bin/uv
}

# For every system and Python that podkit runs on. A file names no index: whoever installs has one of his own.
lock() { # file, source...
  step "Locking $1" "$uv" pip compile --universal --python-version 3.11 --generate-hashes $upgrade --no-emit-index-url \
    --annotation-style line --custom-compile-command ./scripts/lock.sh --output-file "$@"
}
echo pip >"$work/pip.in" # the runner's image may have none
lock requirements-dev.lock pyproject.toml --extra dev
lock requirements-test.lock pyproject.toml "$work/pip.in" --extra test --constraint requirements-dev.lock --no-annotate
