#!/usr/bin/env bash
# Runs the code of the README and of docs/ on a real engine. Takes pytest arguments.
set -euo pipefail
exec "$(dirname "$0")/test.sh" --local tests/test_readme.py "$@"
