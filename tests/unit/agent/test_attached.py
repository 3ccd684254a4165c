"""The stream to the channel of a first process: it ends with the channel, whatever the engine does."""

from __future__ import annotations

import pytest

from podkit.agent.attached import AttachedStream
from podkit.backends.base import Stream
from podkit.errors import EngineTimeout
from podkit.utils._deadline import Deadline
from tests.unit.agent.stream import ScriptedStream


def soon() -> Deadline:
    return Deadline.after(10)


def test_what_the_channel_writes_is_passed_on() -> None:
    stream = AttachedStream(ScriptedStream(b"one", b"two"))
    stream.wait(soon())
    assert [stream.read(soon()).data for _ in range(2)] == [b"one", b"two"]
    with pytest.raises(EngineTimeout):
        stream.wait(Deadline.after(0.01))
    assert stream.exit_code() is None


def test_the_news_of_the_channels_end_ends_the_stream_with_its_exit_code() -> None:
    inner = ScriptedStream()
    inner.say(b"137\n", stream=Stream.STDERR)
    stream = AttachedStream(inner)
    assert stream.read(soon()).data == b""
    assert stream.read(soon()).data == b""
    assert stream.exit_code() == 137


def test_what_the_channel_wrote_before_its_end_comes_although_the_news_was_faster() -> None:
    inner = ScriptedStream()
    inner.say(b"0\n", stream=Stream.STDERR)
    inner.say(b"late")
    stream = AttachedStream(inner)
    assert stream.read(soon()).data == b"late"
    assert stream.read(soon()).data == b""


def test_waiting_ends_with_the_channel() -> None:
    inner = ScriptedStream()
    inner.say(b"0\n", stream=Stream.STDERR)
    stream = AttachedStream(inner)
    assert stream.read(Deadline.after(0)).data == b""
    stream.wait(Deadline.after(0))


def test_the_end_of_the_container_is_the_end_of_the_stream() -> None:
    stream = AttachedStream(ScriptedStream(b""))
    assert stream.read(soon()).data == b""
    assert stream.exit_code() is None  # the engine's answer
