"""Files and whole directories between the host and a container, as one stream of records, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from podkit.agent.files import LATE, AgentFiles, Explain, Task, shown
from podkit.agent.records import (
    Entry,
    Mark,
    Record,
    RecordViolation,
    Refusal,
    encode_data_header,
    encode_entry,
    encode_mark,
)
from podkit.utils._hostfs import over
from podkit.utils._hosttree import HostEntry, TreeWriter, read_tree


class Received(NamedTuple):
    """What a download has written.

    Attributes:
        files: how many regular files.
        size: how many bytes.
        skipped: the names of symlinks, devices, FIFOs and sockets, which were not made.
    """

    files: int
    size: int
    skipped: tuple[str, ...]


def upload(files: AgentFiles, container_id: str, local: Path, path: PurePosixPath, timeout: float | None) -> None:
    """Send a file or a directory; see `SessionFiles.upload`."""
    reasons = _late(timeout) | {
        17: "something else than a directory is there: remove it, or give another path",
        21: f"a directory is there: give the whole path of the file, such as '{shown(path / local.name)}'",
    }
    task = Task(f"upload '{shown(local)}' to", path, ["put", str(path), "", ""], timeout, reasons)
    files.put(container_id, task, _encoded(local))


def _encoded(local: Path) -> Iterator[bytes]:
    for item in read_tree(local):
        if isinstance(item, HostEntry):
            yield encode_entry(Entry(item.below, item.mode, link=item.link))
        elif item is None:
            yield encode_mark(Mark.END)
        else:
            yield encode_data_header(len(item))
            yield item


def download(
    files: AgentFiles, container_id: str, task: Task, local: Path, *, max_bytes: int, max_files: int
) -> Received:
    """Fetch a file or a directory; see `SessionFiles.download`."""

    def write(records: Iterator[Record]) -> Received:
        with TreeWriter(local, max_bytes=max_bytes, max_files=max_files) as writer:
            for record in records:
                if isinstance(record, Entry):
                    writer.begin(record.below, record.mode)
                elif isinstance(record, memoryview):
                    writer.write(record)
                else:
                    writer.end()
            if not writer.begun:
                raise RecordViolation("no file")
            return Received(writer.files, writer.size, tuple(writer.skipped))

    return files.get(container_id, task, write)


def download_task(path: PurePosixPath, max_bytes: int, max_files: int, timeout: float | None) -> Task:
    """Give what is asked of the agent for a download."""
    limits: dict[int, Explain] = {
        Refusal.TOO_LARGE: partial(over, "bytes", "max_bytes", max_bytes),
        Refusal.TOO_MANY: partial(over, "names", "max_files", max_files),
    }
    argv = ["get", str(path), str(max_bytes), str(max_files), ""]
    return Task("download", path, argv, timeout, _late(timeout), limits)


def _late(timeout: float | None) -> dict[int, str]:
    """Give what it means that a transfer is over its time, which the caller has set."""
    return {} if timeout is None else {LATE: f"it took longer than timeout={timeout:g} s: pass a larger one, or none"}
