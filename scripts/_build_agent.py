"""Builds podkit's agent, the program that works in containers, from its C source.

    _build_agent.py DIRECTORY      builds it into a directory
    _build_agent.py --is-built     says by its exit code whether what is in the tree was built from the source there

The programs are kept in git: whoever installs podkit, from a wheel or from a checkout, needs no compiler and waits for
none. That they come of this source, CI proves: it builds them again, elsewhere, and compares every byte.
"""

import hashlib
import subprocess
import sys
import tempfile
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "podkit/agent/native"
PROGRAMS = ROOT / "podkit/agent/bin"
COMPILER = "ziglang==0.15.2"  # exact: another compiler makes other bytes
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


def main() -> None:
    if sys.argv[1:] == ["--is-built"]:
        built_from = PROGRAMS / "built-from"
        sys.exit(not (built_from.exists() and built_from.read_text() == digest()))
    if sys.argv[1:] == ["--compiler"]:
        print(COMPILER)
        return
    build(Path(sys.argv[1]))


def digest() -> str:
    """Return what the programs are built from, as a hash: the source, the compiler and its flags."""
    found = hashlib.sha256("\n".join([COMPILER, *FLAGS]).encode())
    for file in sorted(SOURCE.glob("*.[ch]")):
        found.update(f"\n{file.name}\n{file.stat().st_size}\n".encode() + file.read_bytes())
    return found.hexdigest() + "\n"


def build(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # no cache outlives this: zig takes from one also what was made with other flags
    with tempfile.TemporaryDirectory() as work:
        running = {machine: compile_for(machine, Path(work)) for machine in MACHINES}
        failed = [machine for machine, process in running.items() if process.wait() != 0]
        if failed:
            sys.exit(f"zig could not build podkit's agent for {' and '.join(failed)}")
        for machine in MACHINES:
            name = f"agent-{machine}"
            part = target / f"{name}.part"
            part.write_bytes((Path(work) / name).read_bytes())
            part.chmod(0o755)
            part.replace(target / name)  # at once: another may be running the old one
    (target / "built-from").write_text(digest())


def compile_for(machine: str, work: Path) -> "subprocess.Popen[bytes]":
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(work / "cache"), "ZIG_LOCAL_CACHE_DIR": str(work / "cache")}
    # names without a directory, in one order: else the bytes would depend on where this is
    sources = sorted(file.name for file in SOURCE.glob("*.c"))
    command = [sys.executable, "-m", "ziglang", "cc", f"--target={machine}-linux-musl", *FLAGS]
    command += ["-o", str(work / f"agent-{machine}"), *sources]
    return subprocess.Popen(command, cwd=SOURCE, env={**environ, **caches}, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
