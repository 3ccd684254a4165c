"""FS-02, AG-03: downloads whose records a container has chosen to do harm: nothing is made outside of the target."""

from __future__ import annotations

import os
import random
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from podkit.agent.file_records import Entry, Mark, RecordDecoder, RecordViolation, Refused
from podkit.errors import FileError, PathEscape
from podkit.utils._host_tree import TreeWriter
from tests.support import corpus

COUNT = int(os.environ.get("PODKIT_FUZZ_FRAMES", 2_000))
BESIDE = ["link-out", "top", "victim"]


def streams(dice: random.Random) -> Iterator[bytes]:
    yield from corpus.seeds("transfer")
    for _ in range(COUNT):
        yield corpus.mutated(dice, "transfer")


def receive(top: Path, data: bytes, cut: int) -> None:
    """Write what comes, as `podkit.agent.file_transfers.download` does."""
    decoder = RecordDecoder()
    with TreeWriter(top, max_bytes=1 << 20, max_files=100) as writer:
        for piece in (data[:cut], data[cut:]):
            for record in decoder.feed(piece):
                match record:
                    case Entry():
                        writer.begin(record.below, record.mode)
                    case memoryview():
                        writer.write(record)
                    case Mark.END:
                        writer.end()
                    case _:
                        return


def leads_out(top: Path, data: bytes) -> bool:
    """Whether a writer that joins paths would have left the target; it only says where it would write."""
    try:
        for record in RecordDecoder().feed(data):
            if isinstance(record, Entry) and b"\0" not in record.below:
                target = os.path.normpath(os.path.join(os.fsencode(top), record.below))
                if target != os.fsencode(top) and not target.startswith(os.fsencode(top) + b"/"):
                    return True
            if isinstance(record, Refused):
                break
    except RecordViolation:
        pass
    return False


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory to download to; a link that leads out of it stands in it already, and a file beside it."""
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "link-out").symlink_to(tmp_path)
    return tmp_path / "top"


def test_no_download_writes_outside_of_its_target_or_leaves_a_half_file(target: Path) -> None:
    dice, escapes, ends = random.Random(6), 0, {"taken": 0, "refused": 0}
    for data in streams(dice):
        target.mkdir()
        (target / "link").symlink_to(target.parent)
        escapes += leads_out(target, data)
        try:
            receive(target, data, dice.randrange(len(data) + 1))
            ends["taken"] += 1
        except (RecordViolation, FileError, PathEscape):
            ends["refused"] += 1
        assert sorted(path.name for path in target.parent.iterdir()) == BESIDE, data
        assert (target.parent / "victim").read_text() == "untouched", data
        assert not [name for name in os.listdir(target) if name.startswith(".podkit")], data
        shutil.rmtree(target)
    assert min(ends.values()) > 100
    assert escapes > 100, "control: a writer that joins paths leaves the target"


def test_a_refused_download_keeps_no_descriptor(target: Path) -> None:
    dice, before = random.Random(7), len(os.listdir("/proc/self/fd"))
    for data in corpus.seeds("transfer") * 20:
        shutil.rmtree(target, ignore_errors=True)
        try:
            receive(target, data, dice.randrange(len(data) + 1))
        except (RecordViolation, FileError, PathEscape):
            pass
        finally:
            if target.is_file():
                target.unlink()
    assert len(os.listdir("/proc/self/fd")) == before
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
