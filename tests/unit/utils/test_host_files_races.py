"""A container swaps a directory and a link in a tight loop, while the host writes: no escape.

Beside each claim stands the naive way under the same attack, which must lose: else the attack is broken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from podkit.errors import PodkitError
from podkit.utils import _host_files, _workspace_dirs

SECONDS = 0.15
CONTROL_SECONDS = 10.0
"""A control ends at its first escape."""

PATH = PurePosixPath("d/f")

SWAP = """
    renameat2(AT_FDCWD, b"d", AT_FDCWD, b"link", EXCHANGE)
    time.sleep(random.random() * 0.0002)  # some of what is raced must also come to an end
"""

REGROW = """
    for act in (
        lambda: os.makedirs("tree/a"), lambda: open("tree/a/f", "w").close(),
        lambda: os.rename("tree/a", "tree/b"), lambda: os.symlink(os.path.abspath("../outside"), "tree/a"),
        lambda: os.unlink("tree/a"), lambda: os.rename("tree/b", "tree/a"),
    ):
        try: act()
        except OSError: pass
"""

ATTACK = """
import ctypes, functools, os, platform, random, sys, time
number = {"x86_64": 316, "aarch64": 276, "arm64": 276}[platform.machine()]
renameat2 = functools.partial(ctypes.CDLL(None).syscall, number)
AT_FDCWD, EXCHANGE = -100, 2
os.chdir(sys.argv[1])
parent = os.getppid()
print("ready", flush=True)
while os.getppid() == parent:
"""


@contextmanager
def attack(root: Path, code: str) -> Iterator[None]:
    """Run the code again and again, in another process."""
    with subprocess.Popen([sys.executable, "-c", ATTACK + code, root], stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout
        attacker.stdout.readline()
        try:
            yield
        finally:
            assert attacker.poll() is None, "the attack has ended early"
            attacker.kill()


@pytest.fixture
def arena(tmp_path: Path) -> Path:
    """`root/d` and `root/link`, which names `outside`; the directories have a file `f` each."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    (root / "d/f").write_bytes(b"inside")
    (outside / "f").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    return tmp_path


@pytest.fixture
def swapped(arena: Path) -> Iterator[Path]:
    """The arena, in which `root/d` is the directory at one moment and the link at the next."""
    with attack(arena / "root", SWAP):
        yield arena


def race(act: Callable[[], object], escaped: Callable[[object], bool], *, seconds: float = SECONDS) -> tuple[int, int]:
    """Act as often as time allows; give how often it came to an end, and how often it escaped."""
    done = escapes = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = act()
        except (OSError, PodkitError):
            continue
        done += 1
        escapes += escaped(found)
        if escapes and seconds == CONTROL_SECONDS:
            break
    return done, escapes


def outside_is_changed(arena: Path) -> bool:
    if os.listdir(arena / "outside") == ["f"] and (arena / "outside/f").read_bytes() == b"secret":
        return False
    for path in (arena / "outside").iterdir():
        path.unlink()
    (arena / "outside/f").write_bytes(b"secret")
    return True


def naive(root: Path) -> None:
    """Look, then open: `realpath` and a prefix check."""
    path = os.path.realpath(root / PATH)
    if not path.startswith(f"{root}/"):
        raise PermissionError(path)
    (root / PATH).write_bytes(b"new")


@pytest.mark.usefixtures("way")
def test_raced_writes_never_touch_the_host(swapped: Path) -> None:
    done, escapes = race(
        lambda: _host_files.write_file(swapped / "root", PATH, b"new"), lambda _: outside_is_changed(swapped)
    )
    assert done > 0
    assert escapes == 0


@pytest.mark.usefixtures("way")
def test_raced_writes_of_new_directories_never_touch_the_host(swapped: Path) -> None:
    numbers = iter(range(1_000_000))
    done, escapes = race(
        lambda: _host_files.write_file(swapped / "root", PurePosixPath(f"d/{next(numbers)}/f"), b"new"),
        lambda _: outside_is_changed(swapped),
    )
    assert done > 0
    assert escapes == 0


def test_raced_removals_never_touch_the_host(arena: Path) -> None:
    with attack(arena / "root", REGROW):
        race(lambda: _workspace_dirs.remove_tree(arena / "root/tree"), lambda _: False)
    assert not outside_is_changed(arena)


def test_control_a_look_before_the_writing_escapes(swapped: Path) -> None:
    _, escapes = race(lambda: naive(swapped / "root"), lambda _: outside_is_changed(swapped), seconds=CONTROL_SECONDS)
    assert escapes > 0


def test_control_a_look_before_the_removal_escapes(arena: Path) -> None:
    def remove() -> None:
        inside = arena / "root/tree/a"
        if inside.is_dir() and not inside.is_symlink():
            for name in os.listdir(inside):
                (inside / name).unlink()

    with attack(arena / "root", REGROW):
        _, escapes = race(remove, lambda _: outside_is_changed(arena), seconds=CONTROL_SECONDS)
    assert escapes > 0
