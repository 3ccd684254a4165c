"""Files into a session and out of it, beside the archive API."""

from __future__ import annotations

import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from docker.models.containers import Container

from tests.benchmarks.lab import Lab
from tests.benchmarks.measure import Measurement, by_turns, milliseconds

_DIRECTORY = "/tmp"
_PATH = f"{_DIRECTORY}/file"


def small(lab: Lab, rounds: int) -> list[Measurement]:
    """1 KB, there and back."""
    taken, content = Measurement.of("file-1k"), os.urandom(1 << 10)
    session, container = lab.live_session("small"), lab.live_container()

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            session.files.write_bytes(_PATH, content)
            found = session.files.read_bytes(_PATH)
        assert found == content

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            _put(container, content)
            found = _get(container)
        assert found == content

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]


def middling(lab: Lab, rounds: int) -> list[Measurement]:
    """1 MB, there."""
    taken = Measurement.of("file-1m")
    _compare_writing(taken, lab, os.urandom(1 << 20), rounds)
    return [taken]


def large(lab: Lab, rounds: int) -> list[Measurement]:
    """100 MB, there; fewer rounds, as each takes a second."""
    taken = Measurement.of("file-100m", "a quarter of the rounds")
    _compare_writing(taken, lab, os.urandom(100 << 20), max(3, rounds // 4))
    return [taken]


def tree(lab: Lab, rounds: int) -> list[Measurement]:
    """A directory of 1,000 files of 1 KB, there and back; half the rounds, as each takes a tenth of a second."""
    taken = Measurement.of("tree", "half the rounds")
    session, container = lab.live_session("tree"), lab.live_container()
    with TemporaryDirectory() as there, TemporaryDirectory() as back:
        for number in range(1000):
            Path(there, str(number)).write_bytes(os.urandom(1 << 10))

        def with_podkit() -> None:
            target = Path(back, str(len(taken.podkit)))
            with milliseconds(taken.podkit):
                session.files.upload(there, f"{_DIRECTORY}/tree")
                found = session.files.download(f"{_DIRECTORY}/tree", target)
            assert found.files == 1000
            shutil.rmtree(target)

        def with_sdk() -> None:
            target = Path(back, f"plain-{len(taken.plain)}")
            with milliseconds(taken.plain):
                packed = BytesIO()
                with tarfile.open(fileobj=packed, mode="w") as archive:
                    archive.add(there, "tree")
                assert container.put_archive(_DIRECTORY, packed.getvalue())
                pieces, _ = container.get_archive(f"{_DIRECTORY}/tree")
                with tarfile.open(fileobj=BytesIO(b"".join(pieces))) as archive:
                    archive.extractall(target, filter="data")
            assert len(list((target / "tree").iterdir())) == 1000
            shutil.rmtree(target)

        by_turns(max(3, rounds // 2), with_podkit, with_sdk)
    return [taken]


def _compare_writing(taken: Measurement, lab: Lab, content: bytes, rounds: int) -> None:
    session, container = lab.live_session(taken.target.key), lab.live_container()

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            session.files.write_bytes(_PATH, content)

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            _put(container, content)

    by_turns(rounds, with_podkit, with_sdk)


def _put(container: Container, content: bytes) -> None:
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(os.path.basename(_PATH))
        entry.size = len(content)
        archive.addfile(entry, BytesIO(content))
    assert container.put_archive(_DIRECTORY, made.getvalue())


def _get(container: Container) -> bytes:
    pieces, _ = container.get_archive(_PATH)
    with tarfile.open(fileobj=BytesIO(b"".join(pieces))) as archive:
        found = archive.extractfile(os.path.basename(_PATH))
        assert found is not None
        return found.read()
