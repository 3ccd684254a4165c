"""Files and directories between host and container, in constant memory."""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from podkit.agent.file_records import (
    Entry,
    Mark,
    Record,
    RecordViolation,
    Refusal,
    encode_data_header,
    encode_entry,
    encode_mark,
)
from podkit.agent.file_requests import LATE, FileTask, printable
from podkit.agent.files import ContainerFiles, Progress
from podkit.errors import IsADirectory
from podkit.utils._checks import over
from podkit.utils._host_tree import HostEntry, TreeWriter, read_tree


class Received(NamedTuple):
    """The result of a download.

    Attributes:
        files: how many regular files.
        size: how many bytes.
        skipped: the names of symlinks, devices, FIFOs and sockets, which were not made.
    """

    files: int
    size: int
    skipped: tuple[str, ...]


def upload(
    files: ContainerFiles,
    container_id: str,
    local: Path,
    path: PurePosixPath,
    *,
    user: str | None,
    timeout: float | None,
    progress: Progress | None,
) -> None:
    """Send a file or a directory; see `SessionFiles.upload`."""
    task = FileTask(
        doing=f"upload '{printable(local)}' to",
        path=path,
        argv=["put", str(path)],
        user=user,
        timeout=timeout,
        reasons=_late(timeout)
        | {
            1: "it is another user's, who alone may change its mode: upload it as that user",
            17: "something else than a directory is there: remove it, or pass another path",
            21: f"a directory is there: pass the whole path of the file, such as '{printable(path / local.name)}'",
        },
    )
    with closing(_encoded(local, progress)) as pieces:  # an error's traceback would keep its descriptors open
        files.put(container_id, task, pieces)


def _encoded(local: Path, progress: Progress | None) -> Generator[bytes]:
    files = size = 0
    for item in read_tree(local):
        if isinstance(item, HostEntry):
            yield encode_entry(Entry(item.below, item.mode, link=item.link))
            continue
        if item is None:
            yield encode_mark(Mark.END)
            files += 1
        else:
            yield encode_data_header(len(item))
            yield item
            size += len(item)
        if progress:
            progress(files, size)


def download(
    files: ContainerFiles,
    container_id: str,
    path: PurePosixPath,
    local: Path,
    *,
    is_directory: bool,
    max_bytes: int,
    max_files: int,
    user: str | None,
    timeout: float | None,
    progress: Progress | None,
) -> Received:
    """Fetch a file or a directory. `is_directory` refuses a file. See `SessionFiles.download`."""
    task = FileTask(
        doing="download",
        path=path,
        argv=["get", str(path), str(max_bytes), str(max_files)],
        user=user,
        timeout=timeout,
        reasons=_late(timeout),
        limits={
            Refusal.TOO_LARGE: partial(over, "bytes in all", "max_bytes", max_bytes),
            Refusal.TOO_MANY: partial(over, "names in all", "max_files", max_files),
        },
    )

    def write(records: Iterator[Record]) -> Received:
        with TreeWriter(local, max_bytes=max_bytes, max_files=max_files) as writer:
            for record in records:
                if isinstance(record, Entry):
                    if is_directory and not record.below and not stat.S_ISDIR(record.mode):
                        why = "it is a file, and the path on this host ends in '/'"
                        raise IsADirectory(f"cannot download to '{local}/': {why}", filename=f"{local}/")
                    writer.begin(record.below, record.mode)
                    continue
                if isinstance(record, memoryview):
                    writer.write(record)
                else:
                    writer.end()
                if progress:
                    progress(writer.files, writer.size)
            if not writer.begun:
                raise RecordViolation("no file")
            return Received(writer.files, writer.size, tuple(writer.skipped))

    return files.get(container_id, task, write)


def _late(timeout: float | None) -> dict[int, str]:
    return {} if timeout is None else {LATE: f"it took longer than timeout={timeout:g} s: pass a larger one, or none"}
