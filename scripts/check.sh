#!/usr/bin/env bash
# Looks at the code and changes nothing; lint.sh mends what can be mended. Advice at the end never fails.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment

failed=()
check() { # name, command...; all of them run, so that one round of mending is enough
  say "$1"
  "${@:2}" || failed+=("$1")
}
check "ruff check" "$python" -m ruff check
check "ruff format" "$python" -m ruff format --check
check "the agent's programs are those of its source" "$python" scripts/_build_agent.py --is-built
check mypy "$python" -m mypy
check "mypy of the uses" "$python" -m mypy tests/typing
check "import-linter" .venv/bin/lint-imports
if compgen -G 'tests/typing/*.py' >/dev/null; then
  check pyright "$python" -m pyright --pythonpath "$python"
fi
check "the site" scripts/docs.sh --site

say "Advice"
"$python" -m ruff check --quiet --exit-zero --output-format concise --select C901,PLR0913,PLR0915 podkit
find podkit -name '*.py' -exec wc -l {} + | awk '$1 > 450 && $2 != "total" {print $2 ": " $1 " lines, is there a second idea inside?"}'

((${#failed[@]} == 0)) || die "failed: $(IFS=, && echo "${failed[*]}")"
