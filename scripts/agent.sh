#!/usr/bin/env bash
# Builds the agent, the program that works in containers, into podkit/agent/bin; commit what it makes with its source.
#
#   ./scripts/agent.sh [--check]
#
# --check builds it elsewhere and changes nothing: the bytes must be those in the tree. Then it runs the programs, the one
# for another kind of machine under qemu.
set -euo pipefail
source "$(dirname "$0")/_lib.sh"

check=''
case ${1:-} in
  '') ;;
  --check) check=yes ;;
  *) usage ;;
esac

need_environment
programs=podkit/agent/bin

need_compiler() {
  local wanted
  wanted=$("$python" scripts/_build_agent.py --compiler)
  if [ "$("$python" -m pip freeze | grep -i '^ziglang==')" != "$wanted" ]; then
    step "Installing $wanted" "$python" -m pip install --progress-bar off "$wanted"
  fi
}

run_program() { # machine
  local emulator=''
  if [ "$(uname -sm)" != "Linux $1" ]; then
    emulator=qemu-$1-static
    if ! command -v "$emulator" >/dev/null; then
      may_install "an emulator, to run agent-$1 (qemu-user-static)" || die "Install $emulator, and come again."
      apt_install qemu-user-static
    fi
  fi
  step "Running agent-$1${emulator:+ under $emulator}" "$python" scripts/_run_agent.py $emulator $programs/agent-"$1"
}

need_compiler
if [ $check ]; then
  step "Building the agent from nothing (two minutes)" "$python" scripts/_build_agent.py "$work/the/same"
  diff -r $programs "$work/the/same" || die "The programs in the tree are not what their source gives: run ./scripts/agent.sh and commit."
  for machine in x86_64 aarch64; do run_program $machine; done
else
  step "Building the agent (two minutes)" "$python" scripts/_build_agent.py $programs
fi
(cd $programs && wc -c agent-* | sed '/total$/d' && sha256sum agent-*)
