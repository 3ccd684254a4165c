#!/usr/bin/env bash
# Looks for known vulnerabilities in what is locked, with pip-audit.
#
#   ./scripts/audit.sh
#
# Exits with 0 where none is known, 1 where there are some, and 3 where the data cannot be reached: then nobody knows.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
[ $# = 0 ] || usage
need_venv
rm -rf "$work" # exec runs no traps
exec "$python" scripts/_audit.py
