#!/usr/bin/env bash
# Builds the agent, the program that works in containers, where its source has changed.
#
#   ./scripts/agent.sh [--check]
#
# --check also builds it twice more, elsewhere and from nothing, to see that the bytes are always the same, and runs the
# programs: the one for another kind of machine under qemu.
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

build_copy() { # directory; a checkout of its own, and so with caches of its own
  mkdir -p "$1/scripts" "$1/podkit/agent"
  cp scripts/_build_agent.py "$1/scripts"
  cp -R podkit/agent/native "$1/podkit/agent"
  "$python" "$1/scripts/_build_agent.py"
}

run_program() { # machine
  local emulator=''
  if [ "$(uname -sm)" != "Linux $1" ]; then
    emulator=qemu-$1-static
    if ! command -v $emulator >/dev/null; then
      may_install "an emulator, to run agent-$1 (qemu-user-static)" || die "Install $emulator, and come again."
      apt_install qemu-user-static
    fi
  fi
  step "Running agent-$1${emulator:+ under $emulator}" "$python" scripts/_run_agent.py $emulator $programs/agent-$1
}

if [ $check ]; then
  for copy in "$work/first" "$work/the/second"; do
    step "Building the agent from nothing (a minute)" build_copy "$copy"
    diff -r $programs "$copy/$programs" || die "The same source gave other bytes."
    rm -r "$copy"
  done
  for machine in x86_64 aarch64; do run_program $machine; done
fi
(cd $programs && wc -c agent-* | sed '/total$/d' && sha256sum agent-*)
