"""B10: whoever asks at once for one session gets one container; no write and no answer is lost.

CC-01 and CC-03 are in `tests/integration/test_many_processes.py`.
"""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker.errors import APIError

from podkit import SessionProxy
from tests.integration.conftest import OpenSession
from tests.support.engine import Engine
from tests.support.run import LENGTH

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180 * LENGTH)]

THREADS = 64
WRITES = 50 * LENGTH
ECHOES = 5 * LENGTH
CONTROL_SECONDS = 30


def test_control_who_looks_and_then_creates_gets_a_conflict(engine: Engine) -> None:
    """CC-01: of eight at once, seven."""
    name, gate = engine.new_name("twin"), threading.Barrier(8)

    def look_then_create(_: int) -> int:
        found = engine.client.api.containers(all=True, filters={"name": name})
        gate.wait()
        try:
            return 0 if found else bool(engine.container(name=name, start=False)) * 201
        except APIError as exc:
            return int(exc.status_code or 0)

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(look_then_create, range(8))) == [201] + [409] * 7


# --- files --------------------------------------------------------------------------------------------------

VERSIONS = [letter * size for letter, size in (("a", 200_000), ("b", 100_000))]


def test_a_reader_sees_a_whole_version_of_two_writers(open_session: OpenSession) -> None:
    """CC-05: in the workspace on the host, and in the container, read from outside and from inside."""
    session = open_session()
    for path in ("/workspace/f", "/tmp/f"):
        session.write_file(path, VERSIONS[0])
        seen: set[str] = set()
        with ThreadPoolExecutor(2) as threads:
            writers = [
                threads.submit(lambda path=path, text=text: [session.write_file(path, text) for _ in range(WRITES)])
                for text in VERSIONS
            ]
            while not all(writer.done() for writer in writers):
                seen.add(session.read_file(path))
                seen.add(session.execute_command(["cat", path]).stdout)
        for writer in writers:
            writer.result()
        assert seen <= set(VERSIONS)
        assert session.read_file(path) in VERSIONS


def test_control_a_reader_of_plain_writes_sees_half_a_version(tmp_path: Path) -> None:
    """CC-05."""
    file, over = tmp_path / "f", threading.Event()
    file.write_text(VERSIONS[0])

    def write(text: str) -> None:
        while not over.is_set():
            file.write_text(text)

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(write, text) for text in VERSIONS]
        end = time.monotonic() + CONTROL_SECONDS
        while (found := file.read_text()) in VERSIONS and time.monotonic() < end:
            pass
        over.set()
    for writer in writers:
        writer.result()
    assert found not in VERSIONS


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4], ids=["one session", "four sessions"])
def test_sixty_four_threads_get_each_the_answers_to_their_own_commands(open_session: OpenSession, count: int) -> None:
    """CC-06, CC-07: nonces through the arguments and through the input, back by both streams."""
    sessions = [open_session(session_id=str(number)) for number in range(count)]
    gate = threading.Barrier(THREADS)

    def echo(session: SessionProxy) -> bool:
        said, written = uuid.uuid4().hex, uuid.uuid4().hex
        result = session.execute_command(["sh", "-c", 'echo "$1"; cat >&2', "sh", said], input=written)
        return (result.exit_code, result.stdout, result.stderr) == (0, f"{said}\n", written)

    def ask(number: int) -> list[bool]:
        gate.wait()
        return [echo(sessions[number % count]) for _ in range(ECHOES)]

    with ThreadPoolExecutor(THREADS) as threads:
        answers = [answer for each in threads.map(ask, range(THREADS)) for answer in each]

    assert answers == [True] * (THREADS * ECHOES)
