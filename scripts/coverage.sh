#!/usr/bin/env bash
# Which lines no test runs; the page is htmlcov/index.html. Takes pytest arguments.
set -euo pipefail
exec "$(dirname "$0")/test.sh" --local -n 4 --cov=podkit --cov-branch --cov-report=term:skip-covered --cov-report=html "$@"
