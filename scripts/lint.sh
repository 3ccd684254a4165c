#!/usr/bin/env bash
# Mends what ruff can mend; check.sh looks at the rest.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment
"$python" -m ruff check --fix "$@"
"$python" -m ruff format "$@"
