"""B3: host-side file operations against a container that swaps: `python -m tests.trust.races [--operations N]`.

Two programs in a container exchange a file with a link and a directory with a link as fast as they can, and let a tree
grow again that the host removes, while this process reads, writes, makes directories and removes. Every link names a
directory of the host beside the workspaces: whatever is read from there, or changes there, is an escape. The control is
what most programs do, a `realpath`, a prefix check and an open, in the same run. Prints a Markdown table and ends with
1 where podkit's operations escaped, or where the control did not. Needs an engine and the image of the tests.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from podkit.utils import _hostfs
from tests.conftest import DEFAULT_IMAGE
from tests.support.engine import Engine, remove_directory

SECRET = "secret of the host"
CONTROL_SHARE = 5
"""So many of podkit's operations come on one of the control's."""

_SWAP = """
import ctypes, functools, os, platform, random, shutil, sys, time
number = {"x86_64": 316, "aarch64": 276, "arm64": 276}[platform.machine()]
renameat2 = functools.partial(ctypes.CDLL(None).syscall, number)
AT_FDCWD, EXCHANGE, OUTSIDE = -100, 2, sys.argv[1]
os.umask(0)  # whoever the host's process is, it may do everything here
os.mkdir("d")
os.symlink(OUTSIDE, "d-link")
os.symlink("../../../outside/f", "f-link")
for path in ("f", "d/f"):
    with open(path, "w") as file:
        file.write("inside")
    os.chown(path, 1000, 1000)  # the host keeps the owner of what it replaces
print("ready", flush=True)
while True:
    renameat2(AT_FDCWD, b"d", AT_FDCWD, b"d-link", EXCHANGE)
    if not os.path.islink("f") and not os.path.islink("f-link"):  # a write has replaced the link itself
        os.unlink("f-link")
        os.symlink("../../../outside/f", "f-link")
    renameat2(AT_FDCWD, b"f", AT_FDCWD, b"f-link", EXCHANGE)
    if random.random() < 0.01:
        for name in os.listdir("d") if os.path.isdir("d") else ():
            if name.startswith("new"):
                shutil.rmtree("d/" + name, ignore_errors=True)
    time.sleep(random.random() * 0.0002)  # some of what is raced must also come to an end
"""

_REGROW = """
import os, sys
OUTSIDE = sys.argv[1]
os.umask(0)
print("ready", flush=True)
while True:
    for act in (
        lambda: os.makedirs("tree/a"), lambda: open("tree/a/f", "w").close(),
        lambda: os.rename("tree/a", "tree/b"), lambda: os.symlink(OUTSIDE, "tree/a"),
        lambda: os.unlink("tree/a"), lambda: os.rename("tree/b", "tree/a"),
    ):
        try: act()
        except OSError: pass
"""


@dataclass
class Row:
    """What was seen of one kind of operation.

    Attributes:
        operations: how many were raced.
        ended: how many of them came to an end; the others were refused.
        escapes: how many reached the host.
        control_operations: how many the control did.
        control_escapes: how many of these reached the host.
    """

    operations: int = 0
    ended: int = 0
    escapes: int = 0
    control_operations: int = 0
    control_escapes: int = 0


class Outside:
    """A directory of the host that no operation may reach."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._make()

    def _make(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o777)
        (self.directory / "f").write_text(SECRET)
        self._seen = self._look()

    def _look(self) -> object:
        names = sorted(os.listdir(self.directory))
        found = os.stat(self.directory / "f") if "f" in names else None
        return names, found and (*found[:7], found.st_ctime_ns), self.directory.stat().st_ctime_ns

    def changed(self) -> bool:
        """Whether anything in it is another since the last time: content, names, owners or modes."""
        if self._look() == self._seen:
            return False
        self._make()
        return True


class Naive:
    """Looks, and then acts by name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _looked_at(self, path: str) -> Path:
        real = os.path.realpath(self._root / path)
        if not real.startswith(f"{self._root}/"):
            raise PermissionError(real)
        return self._root / path

    def read(self, path: str) -> str:
        return self._looked_at(path).read_text()

    def write(self, path: str) -> None:
        place = self._looked_at(path)
        before = place.stat() if place.exists() else None
        with open(place, "w") as file:
            file.write("new")
        if before:
            with suppress(PermissionError):
                os.chown(place, before.st_uid, before.st_gid)

    def make(self, path: str) -> None:
        place = self._looked_at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("new")

    def remove(self) -> None:
        inside = self._root / "tree/a"
        if inside.is_dir() and not inside.is_symlink():
            for name in os.listdir(inside):
                (inside / name).unlink()


class Races:
    """Races operations on a session's workspace; while the block lasts, its container swaps.

    Args:
        session: with a workspace on the host.
        workspace: that one, as this process sees it: three levels below the directory that `outside` lies in.
        outside: what the links name.
    """

    def __init__(self, session: SessionProxy, workspace: Path, outside: Outside) -> None:
        self.rows: dict[str, Row] = {}
        self._session = session
        self._workspace = workspace
        self._outside = outside

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """The attack, in the container."""
        with ExitStack() as stack:
            commands = []
            for code in (_SWAP, _REGROW):
                argv = ["python3", "-c", code, str(self._outside.directory)]
                commands.append(stack.enter_context(self._session.popen(argv)))
                assert next(iter(commands[-1])) == "ready\n"
            yield
            assert [command.poll() for command in commands] == [None, None], "the attack has ended early"

    def run(self, operations: int) -> None:
        """Race so many operations, of all kinds in turn, and the control's among them."""
        session, tree, naive = self._session, self._workspace / "tree", Naive(self._workspace)
        read, write = session.read_file, session.write_file
        kinds: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
            "read, a link in the path": (lambda _: read("d/f"), lambda _: naive.read("d/f")),
            "read, the file a link": (lambda _: read("f"), lambda _: naive.read("f")),
            "write, a link in the path": (lambda _: write("d/f", "new"), lambda _: naive.write("d/f")),
            "write, the file a link": (lambda _: write("f", "new"), lambda _: naive.write("f")),
            "new directory": (lambda n: write(f"d/new{n}/f", "new"), lambda n: naive.make(f"d/new{n}/f")),
            "removal of a tree": (lambda _: _hostfs.remove_tree(tree), lambda _: naive.remove()),
        }
        rows = [self.rows.setdefault(kind, Row()) for kind in kinds]
        pairs = list(zip(rows, kinds.values(), strict=True))
        for number in range(operations):
            turn, of = divmod(number, len(pairs))
            row, (act, control) = pairs[of]
            ended, escaped = self._race(act, turn % 100)
            row.operations += 1
            row.ended += ended
            row.escapes += escaped
            if turn % CONTROL_SHARE == 0:
                row.control_operations += 1
                row.control_escapes += self._race(control, turn % 100)[1]

    def _race(self, act: Callable[[int], object], number: int) -> tuple[bool, bool]:
        """Act once; whether it came to an end, and whether it escaped, which a refused one may have done as well."""
        found, ended = None, False
        with suppress(OSError, InvalidInput):  # a FileError is an OSError; any other error of podkit's would be wrong
            found, ended = act(number), True
        return ended, found == SECRET or self._outside.changed()


def table(rows: dict[str, Row]) -> str:
    """What was seen, as Markdown; the last row is the sum."""
    lines = [
        "| operation | raced | came to an end | escapes | control: escapes |",
        "|---|---:|---:|---:|---:|",
    ]
    total = Row(*(sum(getattr(row, name) for row in rows.values()) for name in Row.__annotations__))
    for name, row in [*rows.items(), ("all", total)]:
        lines.append(
            f"| {name} | {row.operations:,} | {row.ended:,} | {row.escapes} "
            f"| {row.control_escapes:,} of {row.control_operations:,} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=1_000_000)
    options = parser.parse_args()
    logging.getLogger("podkit").setLevel(logging.ERROR)
    os.environ.setdefault("PODKIT_TEST_RUN_ID", secrets.token_hex(4))
    os.environ.setdefault("PODKIT_TEST_WORKSPACE_HOST", tempfile.gettempdir())
    image = os.environ.get("PODKIT_DEFAULT_IMAGE", DEFAULT_IMAGE)
    backend = DockerBackend()
    backend.connect()
    engine = Engine(backend.client, f"pt-{os.environ['PODKIT_TEST_RUN_ID']}-races", image)
    directory = Path(tempfile.gettempdir(), engine.prefix)
    directory.mkdir()
    try:
        sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, directory))
        config = ContainerConfig(image=image, container_lifetime_seconds=1800, cpu_limit=2.0)
        workspace = sessions.create_session("races", "1", config).data_dir
        assert workspace is not None
        races = Races(SessionProxy(sessions, "races", "1"), workspace, Outside(directory / "outside"))
        with races.swapping():
            races.run(options.operations)
    finally:
        remove_directory(engine, directory)
        backend.client.close()
    print(table(races.rows))
    rows = races.rows.values()
    return 1 if any(row.escapes for row in rows) or not any(row.control_escapes for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
