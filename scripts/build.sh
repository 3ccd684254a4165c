#!/usr/bin/env bash
# Builds the wheel and the source distribution into dist/.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment
step "Building into dist/" "$python" -m build --no-isolation --outdir dist .
ls -l dist
