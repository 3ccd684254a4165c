"""Builds podkit's agent, the program that works in containers, from its C source; as a part of every wheel, too.

Usage: _build_agent.py [--is-built], which only says by its exit code whether there is nothing to do.
"""

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import version
from os import environ
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "podkit/agent/native"
PROGRAMS = ROOT / "podkit/agent/bin"
BUILT_FROM = PROGRAMS / "built-from"
MACHINES = "x86_64", "aarch64"
FLAGS = [
    "-mcpu=baseline",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-static",
    "-pie",  # somewhere else in memory each time
    "-fstack-protector-strong",
    "-Os",
    "-s",
    "-fomit-frame-pointer",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
]


class AgentHook(BuildHookInterface[Any]):
    """What hatchling calls before it makes a wheel, or one for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not is_built():
            self.app.display_info("Building podkit's agent with zig (a minute)")
            # No cache is kept: an isolated build has its zig in another place each time, and so would not profit.
            with tempfile.TemporaryDirectory() as cache:
                build(Path(cache))


def program(directory: Path, machine: str) -> Path:
    return directory / f"agent-{machine}"


def compiler() -> str:
    return "\n".join([version("ziglang"), *FLAGS])


def wanted() -> str:
    """What the programs have to be built from."""
    digest = hashlib.sha256(compiler().encode())
    for file in sorted(SOURCE.glob("*.[ch]")):
        digest.update(f"\n{file.name}\n{file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def is_built() -> bool:
    whole = all(program(PROGRAMS, machine).exists() for machine in MACHINES)
    return whole and BUILT_FROM.exists() and BUILT_FROM.read_text() == wanted()


def build(cache: Path) -> None:
    key = wanted()
    PROGRAMS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROGRAMS) as made:
        running = {machine: compile_for(machine, Path(made), cache) for machine in MACHINES}
        failed = [machine for machine, process in running.items() if process.wait() != 0]
        if failed:
            sys.exit(f"zig could not build podkit's agent for {' and '.join(failed)}")
        BUILT_FROM.unlink(missing_ok=True)
        for machine in MACHINES:
            program(Path(made), machine).replace(program(PROGRAMS, machine))  # at once: another may use the old one
    BUILT_FROM.write_text(key)


def compile_for(machine: str, target: Path, cache: Path) -> "subprocess.Popen[bytes]":
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    # Names without a directory, in one order: else the bytes would depend on where this is.
    sources = sorted(file.name for file in SOURCE.glob("*.c"))
    command = [sys.executable, "-m", "ziglang", "cc", f"--target={machine}-linux-musl", *FLAGS]
    command += ["-o", str(program(target, machine)), *sources]
    return subprocess.Popen(command, cwd=SOURCE, env={**environ, **caches}, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1:] == ["--is-built"]:
        sys.exit(not is_built())
    # One for each set of flags: zig takes from a cache also what was made without -fstack-protector-strong.
    build(ROOT / ".test-cache" / f"zig-{hashlib.sha256(compiler().encode()).hexdigest()[:12]}")
