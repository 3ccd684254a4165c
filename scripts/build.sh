#!/usr/bin/env bash
# Builds the source distribution, and from that the wheel, into dist/; beside the wheel, what it consists of (CycloneDX).
set -euo pipefail
source "$(dirname "$0")/_lib.sh"
need_environment
step "Building into dist/ (a minute)" "$python" -m build --no-isolation --outdir "$work/dist" .

# The agent's source is in the one, what was built from it in the other: the same bytes as here.
sources=$(tar -tzf "$work"/dist/*.tar.gz)
[[ $sources == */agent/native/main.c* && $sources != */agent/bin/* ]] || die "The source distribution has no source of the agent, or programs."
(cd "$work" && "$python" -m zipfile -e dist/*.whl wheel)
for program in podkit/agent/bin/agent-{x86_64,aarch64}; do
  cmp "$program" "$work/wheel/$program" || die "The wheel has another $program, or none."
done

step "Writing down what the wheel consists of" "$python" scripts/_sbom.py "$work"/dist/*.whl

mkdir -p dist
mv "$work"/dist/* dist
ls -l dist
