#!/usr/bin/env bash
# Makes podkit ready to use and to work on: its environment (.venv), an engine, an image; then runs Example 1.
#
#   ./scripts/install.sh [--yes]
#
# --yes installs what is missing without asking; so does a run without a terminal. What is there is used as it is:
# it is safe to run this again.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"

case ${1:-} in
  '') ;;
  --yes) yes=yes ;;
  *) usage ;;
esac

usual_image=${PODKIT_DEFAULT_IMAGE:-python:3.11-alpine}
need_environment
need_engine
need_image

say 'Example 1: get_docker_session(user_id="bob", session_id="123").execute_command("pwd")'
# Other ids than the example's, whose session may be yours; and removed again.
"$python" - <<'PYTHON' | tee "$work/example"
import os
from podkit import get_docker_session

with get_docker_session(user_id="install", session_id=f"check-{os.getpid()}") as session:
    print(session.execute_command("pwd").stdout, end="")
PYTHON
[ "$(cat "$work/example")" = /workspace ] || die "Example 1 should have printed /workspace."

say "podkit is ready. Next:"
echo "  source .venv/bin/activate"
[ -z "$told" ] || echo "  export DOCKER_HOST=$host"
[ "$image" = "$usual_image" ] || echo "  export PODKIT_DEFAULT_IMAGE=$image"
echo "  python -c 'from podkit import get_docker_session; print(get_docker_session(\"bob\", \"123\").execute_command(\"pwd\").stdout)'"
echo "  ./scripts/test.sh"
