"""A file of the host that appears when it is complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from podkit.utils._atomic_file import NewFile

KILLED = """
import os, sys
from podkit.utils._atomic_file import NewFile

file = NewFile(os.open(sys.argv[1], os.O_RDONLY), "f", 0o644)
os.write(file.fd, b"half")
os.kill(os.getpid(), 9)
"""


def new_file(directory: Path) -> NewFile:
    return NewFile(os.open(directory, os.O_RDONLY), "f", 0o640)


def test_it_replaces_what_is_there_once_it_is_complete(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        file = new_file(tmp_path)
        os.write(file.fd, content)
        before = os.listdir(tmp_path)
        file.appear()
        file.close()
        file.close()
        assert (tmp_path / "f").read_bytes() == content
        assert before in ([], ["f"])
    assert os.listdir(tmp_path) == ["f"]


def test_nothing_is_left_of_one_that_did_not_appear(tmp_path: Path) -> None:
    file = new_file(tmp_path)
    os.write(file.fd, b"half")
    file.close()
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == -9
    assert os.listdir(tmp_path) == []
