"""A fake workload's file system: absolute paths mapped to bytes."""

from __future__ import annotations

import errno
import posixpath
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

_USUAL_DIRECTORIES = frozenset({"/", "/bin", "/etc", "/home", "/opt", "/proc", "/root", "/srv", "/tmp", "/usr", "/var"})


@dataclass(frozen=True, slots=True)
class Place:
    """A mount and the store of its files.

    Attributes:
        target: the mount's path inside.
        store: a directory of this host, or a dict of paths relative to `target`.
        read_only: whether the workload may only read it.
    """

    target: str
    store: Path | dict[str, bytes]
    read_only: bool = False


class Files(MutableMapping[str, bytes]):
    """Absolute paths and their bytes, mounts included. Guarded by the lock of its fake while programs run.

    Files of a bind mount are read and written on this host, below the mount's source, if that directory exists here.
    All others are in memory. Links are followed: never point a fake at files that you do not trust.

    Args:
        places: the mounts.
    """

    def __init__(self, places: list[Place] | None = None) -> None:
        self._layer: dict[str, bytes] = {}
        # the longest target first: the innermost mount of a path counts
        self._places = sorted(places or [], key=lambda place: len(place.target), reverse=True)
        self._directories = set(_USUAL_DIRECTORIES) | {place.target for place in self._places}

    def __getitem__(self, path: str) -> bytes:
        store, inner, _ = self._locate(path)
        if isinstance(store, dict):
            return store[inner]
        try:
            return (store / inner).read_bytes()
        except OSError as exc:
            raise KeyError(path) from exc

    def __setitem__(self, path: str, data: bytes) -> None:
        store, inner, read_only = self._locate(path)
        if read_only:
            raise OSError(errno.EROFS, "Read-only file system", path)
        if absolute(path) == "/dev/null":  # the only device
            return
        if self.is_directory(path):
            raise OSError(errno.EISDIR, "Is a directory", path)
        if isinstance(store, dict):
            store[inner] = data
        else:
            (store / inner).parent.mkdir(parents=True, exist_ok=True)
            (store / inner).write_bytes(data)

    def __delitem__(self, path: str) -> None:
        store, inner, read_only = self._locate(path)
        if read_only:
            raise OSError(errno.EROFS, "Read-only file system", path)
        if isinstance(store, dict):
            del store[inner]
        elif (store / inner).is_file():
            (store / inner).unlink()
        else:
            raise KeyError(path)

    def __iter__(self) -> Iterator[str]:
        yield from list(self._layer)  # a copy: programs may change it meanwhile
        for place in self._places:
            for inner in _names(place.store):
                yield posixpath.join(place.target, inner)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def is_directory(self, path: str) -> bool:
        """Whether a directory exists: a usual one, a made one, or one with a file."""
        path = absolute(path)
        store, inner, _ = self._locate(path)
        if isinstance(store, Path) and (store / inner).is_dir():
            return True
        below = path.rstrip("/") + "/"
        return path in self._directories or any(name.startswith(below) for name in (*self._directories, *self))

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents. Twice is harmless."""
        store, inner, read_only = self._locate(path)
        if read_only:
            raise OSError(errno.EROFS, "Read-only file system", path)
        if isinstance(store, Path):
            (store / inner).mkdir(parents=True, exist_ok=True)
        self._directories.add(absolute(path))

    def remove_directory(self, path: str) -> None:
        """Remove a directory tree. A missing one is no error."""
        store, inner, _ = self._locate(path)
        below = absolute(path).rstrip("/") + "/"
        for name in [name for name in self if name.startswith(below)]:
            del self[name]
        self._directories = {name for name in self._directories if not (name + "/").startswith(below)}
        if isinstance(store, Path) and inner:
            shutil.rmtree(store / inner, ignore_errors=True)

    def names_in(self, path: str) -> list[str]:
        """Return a directory's names, sorted."""
        below = absolute(path).rstrip("/") + "/"
        inside = (name.removeprefix(below) for name in (*self._directories, *self) if name.startswith(below))
        return sorted({name.split("/")[0] for name in inside if name})

    def _locate(self, path: str) -> tuple[Path | dict[str, bytes], str, bool]:
        path = absolute(path)
        for place in self._places:
            if path == place.target or path.startswith(place.target + "/"):
                return place.store, path[len(place.target) :].lstrip("/"), place.read_only
        return self._layer, path, False


def absolute(path: str) -> str:
    """Return a path without `.`, `..` and doubled slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _names(store: Path | Mapping[str, bytes]) -> list[str]:
    if isinstance(store, Path):
        return [str(found.relative_to(store)) for found in store.rglob("*") if found.is_file()]
    return list(store)
