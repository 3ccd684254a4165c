#!/usr/bin/env bash
# Runs the code of the README and of docs/ on a real engine. Takes pytest arguments.
#
#   ./scripts/docs.sh [pytest arguments]
#   ./scripts/docs.sh --site
#
# --site builds the site into .site/html instead: the pages, and a reference made from the docstrings. No engine is
# needed; a broken link fails.
set -euo pipefail
[ "${1:-}" = --site ] || exec "$(dirname "$0")/test.sh" --local tests/test_readme.py "$@"

source "$(dirname "$0")/_lib.sh"
need_environment
"$python" scripts/_docs_site.py .site/pages
step "Building the site" "$python" -m mkdocs build --strict --config-file docs/mkdocs.yml
echo "The site is .site/html/index.html"
