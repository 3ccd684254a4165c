"""The contract suite, second part: processes inside a workload."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from podkit.backends.base import Backend, ExecSpec, NotStarted, Stream
from podkit.errors import ContainerNotFound, ContainerNotRunning, EngineTimeout, EngineUnavailable, InvalidInput
from podkit.testing._contract import (
    PATIENCE_SECONDS,
    Contract,
    Workloads,
    exit_code,
    read_all,
    read_until,
    run,
    wait_for_end,
)
from podkit.utils._deadline import Deadline, wait_until


class StreamContract(Contract):
    """The contract of processes and their streams."""

    @pytest.fixture(scope="class")
    @classmethod
    def workload(cls, backend: Backend, image: str) -> Iterator[str]:
        """Return a running workload, shared by the tests. None of them ends it."""
        made = Workloads(backend, image, cls.new_prefix())
        yield made.start(environment={"GIVEN": "by the workload", "BOTH": "workload"})
        made.remove_all()

    # --- the main process ---------------------------------------------------------------------------

    def test_an_attached_main_process_is_spoken_to_from_its_first_word_on(
        self, backend: Backend, workloads: Workloads
    ) -> None:
        id = workloads.create(command=["sh", "-c", "echo begun; echo err >&2; cat"], attachable=True)
        stream = backend.open_stream(id, None)  # before the start, so that no output is missed
        try:
            assert backend.start_workload(id) is True
            stream.write(b"said\n", Deadline.after(PATIENCE_SECONDS))
            assert read_until(stream, b"said\n").replace(b"err\n", b"") == b"begun\nsaid\n"
            assert stream.exit_code() is None
        finally:
            stream.close()

    def test_the_stream_to_a_main_process_ends_with_it(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.create(command=["sh", "-c", "cat; echo the rest; exit 5"], attachable=True)
        stream = backend.open_stream(id, None)
        try:
            backend.start_workload(id)
            stream.close_stdin()
            assert read_all(stream)[Stream.STDOUT] == b"the rest\n"
            assert exit_code(stream) == 5
        finally:
            stream.close()

    def test_closing_the_stream_ends_the_input_of_the_main_process(
        self, backend: Backend, workloads: Workloads
    ) -> None:
        id = workloads.create(command=["sh", "-c", "cat; exit 6"], attachable=True)
        stream = backend.open_stream(id, None)
        backend.start_workload(id)
        stream.close()
        wait_for_end(backend, id)
        assert backend.inspect_workload(id).exit_code == 6

    def test_an_attachable_workload_starts_again_without_anybody_attached(
        self, backend: Backend, workloads: Workloads
    ) -> None:
        id = workloads.create(attachable=True)
        stream = backend.open_stream(id, None)
        backend.start_workload(id)
        stream.close()
        backend.stop_workload(id, 0)
        backend.start_workload(id)
        assert run(backend, id, ["echo", "up"]).stdout == b"up\n"
        assert backend.get_workload_logs(id, 5) == ""

    # --- output -------------------------------------------------------------------------------------

    def test_both_streams_come_apart(self, backend: Backend, workload: str) -> None:
        ended = run(backend, workload, ["sh", "-c", "echo out; echo err >&2"])
        assert (ended.exit_code, ended.stdout, ended.stderr) == (0, b"out\n", b"err\n")

    def test_output_comes_while_the_process_runs(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["sh", "-c", "echo early; sleep 20"]))
        try:
            assert read_until(stream, b"early\n") == b"early\n"
            assert stream.exit_code() is None
        finally:
            stream.close()

    def test_waiting_takes_nothing_and_gives_up_at_its_deadline(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["sh", "-c", "sleep 1; echo late"]))
        try:
            assert not stream.wait(Deadline.after(0.1))
            assert stream.wait(Deadline.after(PATIENCE_SECONDS))
            assert stream.wait(Deadline.after(0))  # the bytes are still there
            assert read_all(stream)[Stream.STDOUT] == b"late\n"
            assert stream.wait(Deadline.after(0))  # the end counts as something to read
        finally:
            stream.close()

    def test_a_read_gives_up_at_its_deadline_and_may_go_on(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["sh", "-c", "sleep 1; echo late"]))
        try:
            began = time.monotonic()
            assert stream.read(Deadline.after(0.1)) is None
            assert time.monotonic() - began < 0.9
            assert read_all(stream)[Stream.STDOUT] == b"late\n"
        finally:
            stream.close()

    def test_an_ended_stream_stays_ended(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["true"]))
        try:
            read_all(stream)  # up to the first empty chunk
            ends = [stream.read(Deadline.after(1)) for _ in range(3)]
            assert [end and end.data for end in ends] == [b"", b"", b""]
            assert exit_code(stream) == 0
        finally:
            stream.close()

    def test_closing_twice_is_harmless(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["true"]))
        stream.close()
        stream.close()

    def test_a_child_in_the_background_does_not_delay_the_exit_code(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["sh", "-c", "sleep 20 & echo done"]))
        try:
            assert read_until(stream, b"done\n") == b"done\n"
            assert exit_code(stream) == 0
        finally:
            stream.close()

    # --- exit codes ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("code", [0, 1, 124, 126, 127, 128, 137, 255])
    def test_an_exit_code_is_the_programs_own(self, backend: Backend, workload: str, code: int) -> None:
        assert run(backend, workload, ["sh", "-c", f"exit {code}"]).exit_code == code

    def test_a_missing_program_never_started(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["podkit-test-no-such-program"]))
        try:
            read_all(stream)
            with pytest.raises(NotStarted) as caught:
                wait_until(lambda: stream.exit_code() is not None, deadline=Deadline.after(PATIENCE_SECONDS))
            assert caught.value.exit_code == 127
        finally:
            stream.close()

    def test_a_file_that_is_no_program_never_started(self, backend: Backend, workload: str) -> None:
        assert run(backend, workload, ["/etc/passwd"]).exit_code == 126

    # --- arguments, environment, user, directory ----------------------------------------------------

    def test_arguments_pass_no_shell(self, backend: Backend, workload: str) -> None:
        words = ["$HOME", "*", "a  b", "", "'\"\\", "é🐟", "x;y", "line\nbreak"]
        ended = run(backend, workload, ["echo", *words])
        assert ended.stdout == (" ".join(words) + "\n").encode()

    def test_a_command_has_its_own_environment_and_the_workloads(self, backend: Backend, workload: str) -> None:
        own = {"BOTH": "command", "ODD": "a=b\nc é $HOME", "EMPTY": ""}

        def value(name: str) -> bytes:
            return run(backend, workload, ["printenv", name], environment=own).stdout

        assert value("GIVEN") == b"by the workload\n"
        assert value("BOTH") == b"command\n"
        assert value("ODD") == "a=b\nc é $HOME\n".encode()
        assert value("EMPTY") == b"\n"
        assert run(backend, workload, ["printenv", "ODD"]).exit_code == 1  # the next command does not inherit it

    def test_a_command_starts_in_the_workloads_directory_or_its_own(self, backend: Backend, workload: str) -> None:
        assert run(backend, workload, ["pwd"]).stdout == b"/workspace\n"
        assert run(backend, workload, ["pwd"], working_dir="/tmp").stdout == b"/tmp\n"

    def test_a_command_runs_as_the_workloads_user_or_its_own(self, backend: Backend, workload: str) -> None:
        assert run(backend, workload, ["whoami"]).stdout == b"root\n"
        assert run(backend, workload, ["whoami"], user="nobody").stdout == b"nobody\n"

    def test_a_workloads_user_runs_its_commands(self, backend: Backend, workloads: Workloads) -> None:
        assert run(backend, workloads.start(user="nobody"), ["whoami"]).stdout == b"nobody\n"

    def test_an_unknown_user_is_refused(self, backend: Backend, workload: str) -> None:
        with pytest.raises(InvalidInput):
            run(backend, workload, ["true"], user="podkit-test-nobody")

    def test_a_missing_directory_is_refused(self, backend: Backend, workload: str) -> None:
        with pytest.raises(InvalidInput):
            run(backend, workload, ["true"], working_dir="/podkit-test/no/such")

    # --- input --------------------------------------------------------------------------------------

    def test_without_input_there_is_nothing_to_read(self, backend: Backend, workload: str) -> None:
        assert run(backend, workload, ["cat"]).stdout == b""

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3 << 20], ids=["nothing", "a byte", "100 kB", "3 MiB"])
    def test_input_arrives_as_it_was_sent(self, backend: Backend, workload: str, size: int) -> None:
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        ended = run(backend, workload, ["cat"], input=data)
        assert ended.stdout == data
        assert ended.exit_code == 0

    def test_input_and_output_take_turns(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["cat"], stdin=True))
        try:
            for word in (b"ping\n", b"pong\n"):
                stream.write(word, Deadline.after(PATIENCE_SECONDS))
                assert read_until(stream, word) == word
            stream.close_stdin()
            assert exit_code(stream) == 0
        finally:
            stream.close()

    def test_writing_to_what_does_not_read_ends_at_the_deadline(self, backend: Backend, workload: str) -> None:
        stream = backend.open_stream(workload, ExecSpec(argv=["sleep", "20"], stdin=True))
        try:
            began = time.monotonic()
            with pytest.raises(EngineTimeout):
                stream.write(bytes(32 << 20), Deadline.after(0.5))  # more than all buffers on the way hold
            assert time.monotonic() - began < 5
        finally:
            stream.close()

    # --- many at once -------------------------------------------------------------------------------

    def test_many_commands_at_once_never_mix(self, backend: Backend, workload: str) -> None:
        def echo(_: int) -> bool:
            nonce = uuid.uuid4().hex
            return run(backend, workload, ["cat"], input=nonce.encode()).stdout == nonce.encode()

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(echo, range(16)))

    # --- the workload ends --------------------------------------------------------------------------

    def test_a_killed_workload_ends_its_commands(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        stream = backend.open_stream(id, ExecSpec(argv=["sh", "-c", "echo early; sleep 60"]))
        try:
            read_until(stream, b"early\n")
            backend.stop_workload(id, 0)
            assert read_all(stream) == {Stream.STDOUT: b"", Stream.STDERR: b""}
            assert exit_code(stream) == 137
        finally:
            stream.close()

    def test_a_removed_workload_takes_the_exit_code_with_it(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        stream = backend.open_stream(id, ExecSpec(argv=["sh", "-c", "echo early; sleep 60"]))
        try:
            read_until(stream, b"early\n")
            backend.remove_workload(id)
            with suppress(EngineUnavailable):  # here a stream may break or end
                read_all(stream)
            with pytest.raises(ContainerNotFound):
                stream.exit_code()
        finally:
            stream.close()

    def test_nothing_starts_in_a_workload_that_is_gone(self, backend: Backend) -> None:
        with pytest.raises(ContainerNotFound):
            backend.open_stream("0" * 64, ExecSpec(argv=["true"]))

    def test_nothing_starts_in_a_workload_that_does_not_run(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        backend.stop_workload(id, 0)
        with pytest.raises(ContainerNotRunning):
            backend.open_stream(id, ExecSpec(argv=["true"]))
