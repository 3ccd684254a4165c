"""The stream to the channel of a first process: it ends with the channel, whatever the engine does."""

from __future__ import annotations

from podkit.agent.attached_stream import AttachedStream
from podkit.backends.base import Stream
from podkit.utils._deadline import Deadline
from tests.unit.agent.stream import ScriptedStream
from tests.unit.support import data_of


def soon() -> Deadline:
    return Deadline.after(10)


def test_what_the_channel_writes_is_passed_on() -> None:
    stream = AttachedStream(ScriptedStream(b"one", b"two"))
    assert stream.wait(soon())
    assert [data_of(stream) for _ in range(2)] == [b"one", b"two"]
    assert not stream.wait(Deadline.after(0.01))
    assert stream.exit_code() is None


def test_the_news_of_the_channels_end_ends_the_stream_with_its_exit_code() -> None:
    inner = ScriptedStream()
    inner.say(b"137\n", stream=Stream.STDERR)
    stream = AttachedStream(inner)
    assert data_of(stream) == b""
    assert data_of(stream) == b""
    assert stream.exit_code() == 137


def test_what_the_channel_wrote_before_its_end_comes_although_the_news_was_faster() -> None:
    inner = ScriptedStream()
    inner.say(b"0\n", stream=Stream.STDERR)
    inner.say(b"late")
    stream = AttachedStream(inner)
    assert data_of(stream) == b"late"
    assert data_of(stream) == b""


def test_waiting_ends_with_the_channel() -> None:
    inner = ScriptedStream()
    inner.say(b"0\n", stream=Stream.STDERR)
    stream = AttachedStream(inner)
    assert data_of(stream, 0) == b""
    assert stream.wait(Deadline.after(0))


def test_the_end_of_the_container_is_the_end_of_the_stream() -> None:
    stream = AttachedStream(ScriptedStream(b""))
    assert data_of(stream) == b""
    assert stream.exit_code() is None  # the engine's answer
