"""Tar archives for containers that have never run. Imported late, because `tarfile` is slow to import."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path


def of_programs(files: Mapping[str, Path]) -> bytes:
    """Return an archive of programs, by name, that everybody may run."""
    return _archive(map(_program, files, files.values()))


def _program(name: str, path: Path) -> tuple[tarfile.TarInfo, bytes]:
    entry, content = tarfile.TarInfo(name), path.read_bytes()
    entry.size, entry.mode = len(content), 0o111  # execute only: a program that cannot be read cannot be traced
    return entry, content


def of_directories(modes: Mapping[str, int]) -> bytes:
    """Return an archive of empty directories, by path, with these modes."""
    return _archive((_directory(path, mode), b"") for path, mode in modes.items())


def _directory(path: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry


def _archive(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for entry, content in entries:
            archive.addfile(entry, BytesIO(content))
    return made.getvalue()
