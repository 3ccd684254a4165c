"""Fetches the wheels of the tests' runner, for its Python and C library, which may be others than this machine's.

Usage: _wheels.py CACHE REPORT, where REPORT is what PROBE printed there. Prints the directory with the wheels.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# Run in the runner's base image, which has Python and perhaps nothing else.
PROBE = """
import os, platform, sys
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except ValueError:
    libc = "musl 1.2"
print("%d.%d" % sys.version_info[:2], platform.machine(), libc)
"""


def main() -> None:
    if sys.argv[1:] == ["--probe"]:
        print(PROBE)
        return
    cache, report = Path(sys.argv[1]), sys.argv[2]
    python, machine, libc, libc_version = report.split()
    if [int(part) for part in python.split(".")] < [3, 11]:
        sys.exit(f"The default image has Python {python} and podkit needs 3.11: try scripts/test.sh --local")
    needed = requirements()
    key = hashlib.sha256("\n".join([report, *needed]).encode()).hexdigest()[:16]
    wheels = cache / f"wheels-{key}"
    if not wheels.exists():
        cache.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=cache))
        try:
            download(part, ["pip", *needed], python, platforms(libc, libc_version, machine))
            (part / "requirements.txt").write_text("\n".join(needed) + "\n")
            part.rename(wheels)  # only when it is whole
        except OSError:
            if not wheels.exists():  # else another run was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    print(wheels)


def requirements() -> list[str]:
    """podkit's dependencies, and of its tools those that tests run with."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    tools = [tool for tool in project["optional-dependencies"]["dev"] if re.match(r"pytest\b", tool)]
    return sorted(project["dependencies"] + tools)


def platforms(libc: str, libc_version: str, machine: str) -> list[str]:
    """The wheel tags that such a system takes, newest first."""
    newest = int(libc_version.split(".")[1])
    if libc == "musl":
        return [f"musllinux_1_{minor}_{machine}" for minor in range(newest, -1, -1)]
    modern = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
    return [*modern, f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]


def download(target: Path, needed: list[str], python: str, tags: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--dest", str(target), "--only-binary=:all:"]
    command += ["--progress-bar=off", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={tag}" for tag in tags]
    subprocess.run([*command, *needed], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
