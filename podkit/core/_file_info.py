"""The answers of file calls."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from podkit.agent.file_records import Entry
from podkit.agent.file_requests import printable
from podkit.errors import NotText

FileType = Literal["file", "directory", "symlink", "other"]

_TYPES: dict[int, FileType] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file, a directory or anything else with a name.

    Attributes:
        path: absolute, inside.
        type: `other` is a device, a FIFO or a socket.
        size: in bytes.
        mode: its permission bits, such as `0o644`.
        uid: the number of its owner, inside.
        gid: the number of its group, inside.
        modified_at: the last change of its content, UTC. The container says it: it may be any time.
        target: the text of a symlink; `None` for anything else.
    """

    path: Path
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: datetime
    target: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The result of `download`.

    Attributes:
        path: on this host.
        files: how many regular files.
        size: how many bytes.
        skipped: symlinks, devices, FIFOs and sockets that were left out; their paths below the downloaded one.
    """

    path: Path
    files: int
    size: int
    skipped: tuple[str, ...] = ()


def file_info(path: PurePosixPath, entry: Entry) -> FileInfo:
    """Return an entry of the agent's as a `FileInfo`."""
    kind = _TYPES.get(stat.S_IFMT(entry.mode), "other")
    return FileInfo(
        path=Path(path),
        type=kind,
        size=entry.size,
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        modified_at=_moment(entry.modified_seconds, entry.modified_nanoseconds),
        target=os.fsdecode(entry.link) if kind == "symlink" else None,
    )


def _moment(seconds: int, nanoseconds: int) -> datetime:
    """Return a time that the container chose. One beyond all calendars becomes their end."""
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def as_text(data: bytes, path: PurePath) -> str:
    """Decode a file. `path` is for the message.

    Raises:
        NotText: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        why = f"it is not UTF-8 (byte {exc.start}): read it as bytes, with files.read_bytes"
        raise NotText(f"cannot read '{printable(path)}' as text: {why}", filename=str(path)) from exc
