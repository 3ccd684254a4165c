"""One open stream to an agent, shared by many commands.

No thread of its own: of the threads that wait for something, one reads the stream for all of them, and passes that
duty on when its own frames have come. An idle channel costs a descriptor and nothing else.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from podkit.agent.channel_call import WINDOW_BYTES, Call, Wake
from podkit.agent.command_request import CommandRequest
from podkit.agent.protocol import (
    PROTOCOL,
    Frame,
    FrameDecoder,
    FromAgent,
    ProtocolViolation,
    StartFlag,
    ToAgent,
    encode,
    encode_number,
    encode_start,
)
from podkit.backends.base import ExecStream, Stream
from podkit.errors import EngineTimeout, InvalidInput, PodkitError, SessionBusy
from podkit.utils._deadline import Deadline, held
from podkit.utils._fork import renew_after_fork

_COMPLAINT_BYTES = 1 << 10
_REST_SECONDS = 0.5
PING_SECONDS = 1.5
"""How long an agent has for a sign of life before its channel counts as broken."""

_LOOK_SECONDS = 0.05  # how long to read on past a deadline: a flood never ends
_AT_ONCE = Deadline.after(0)
_PARENTS = "the channel belongs to the process that this one was forked from"
_SENDING = "sending to the agent"


class ChannelBroken(Exception):
    """The stream has ended. Internal: `ChannelRecovery` finds out each command's fate.

    Attributes:
        nothing_sent: the agent had ended its lifetime before it read this caller's frames.
    """

    def __init__(self, why: str, *, nothing_sent: bool = False) -> None:
        super().__init__(why)
        self.nothing_sent = nothing_sent


class ParentsChannel(ChannelBroken):
    """The stream belongs to the parent of this forked process."""


class Channel:
    """The stream and its waiting calls. Safe to use from many threads.

    Args:
        stream: to a process `agent channel`; the channel owns it.
    """

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        self._owner = os.getpid()
        self._decoder = FrameDecoder()
        self._calls: dict[int, Call] = {}
        self._waiting: set[Wake] = set()
        self._ids = itertools.count(1)
        self._greeting: int | None = None
        self._is_foreign = False  # the bytes are not an agent's, such as an error text of the engine
        self._broken: str | None = None
        self._said_bye = False
        self._complaint = b""
        self._heard_at = time.monotonic()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._reader: object = None  # of the thread that reads for all: no lock, as that could not be told from one
        # that a thread was interrupted in the moment of taking
        self._reading_thread = 0
        self._sending = threading.RLock()
        self._is_sending = False
        self._state = threading.Lock()  # guards _calls, _waiting, the calls' own `waiting`, and who becomes _reader
        if os.getpid() != self._owner:
            self._broken = _PARENTS

    # --- state --------------------------------------------------------------------------------------

    @property
    def broken(self) -> bool:
        """Whether the stream has ended. A new channel is needed then."""
        return self._broken is not None

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not self._calls

    @property
    def silent_seconds(self) -> float:
        """Seconds since the agent was last heard."""
        return time.monotonic() - self._heard_at

    def is_quiet(self) -> bool:
        """Whether the stream is open, as seen at once. Keeps commands from an agent that has ended."""
        if self._broken is None:
            duty, heard_at = object(), self._heard_at
            try:
                if self._takes_over(duty):
                    self._read_what_is_there(Deadline.after(0))
                    self._heard_at = heard_at  # old bytes are no sign of life
            finally:
                if self._reader is duty:  # here, because a call may be interrupted before it does anything
                    self._reader = None
                self._pass_on()
        return self._broken is None and not self._said_bye

    @property
    def has_greeted(self) -> bool:
        """Whether an agent of any version has answered."""
        return self._greeting is not None

    def exit_code(self, deadline: Deadline) -> int | None:
        """Ask the engine how the agent ended; see `ExecStream.exit_code`."""
        return self._stream.exit_code(deadline=deadline)

    def close(self) -> None:
        """Close the stream, which ends the agent and its commands. Twice is harmless."""
        self._break("it was closed")

    def _refuse_to_child(self) -> None:
        """Refuse a forked child. It shares the stream, and must not read, write or close it.

        Raises:
            ParentsChannel: this process is a child of that one.
        """
        if os.getpid() != self._owner:
            raise ParentsChannel(_PARENTS)

    def _break(self, why: str) -> None:
        if os.getpid() != self._owner:
            self._broken = self._broken or why
            return
        with self._state:
            # open -> broken: the first reason stays
            if self._broken is None:
                self._broken = why
            waiting = list(self._waiting)
        # outside of the lock, which the reader may wait for
        self._stream.close()
        for wake in waiting:
            wake.set()

    def _raise_broken(self, *, begun: bool = False) -> None:
        complaint = self._complaint.decode(errors="replace").strip()
        raise ChannelBroken(
            f"the channel to the agent broke: {self._broken}{f' ({complaint})' if complaint else ''}",
            nothing_sent=self._said_bye and not begun,
        )

    # --- sending ------------------------------------------------------------------------------------

    def greet(self, deadline: Deadline) -> None:
        """Wait for the agent's first word.

        Raises:
            ChannelBroken: it has ended, or speaks another version.
            EngineTimeout: it said nothing before the deadline.
        """
        call = Call(0)
        if not self.wait(call, lambda: self._greeting is not None, deadline):
            raise EngineTimeout("the agent in the container did not answer in time")
        if self._greeting != PROTOCOL:
            self._break(f"it speaks version {self._greeting} of the protocol, not {PROTOCOL}")
            self._raise_broken()

    def new_call(self) -> Call:
        """Return a call that nothing was sent for yet."""
        return Call(next(self._ids))

    def start(
        self,
        call: Call,
        request: CommandRequest,
        *,
        user: str,
        working_dir: str,
        flags: StartFlag,
        deadline: Deadline,
    ) -> None:
        """Send a command.

        Args:
            call: a new one, for the command's frames.
            request: the command.
            user: who runs it; `""` for the agent's own user.
            working_dir: the container's.
            flags: `HOME`, where that is to be the user's; `QUIET`, where nobody waits for the command's number.
            deadline: until when it must be sent.

        Raises:
            InvalidInput: the command and its environment are longer than a frame; nothing was sent.
            ChannelBroken: it may have been sent.
            EngineTimeout: the same; the channel is broken then.
        """
        flags |= (
            StartFlag.INPUT * (request.input is not None)
            | StartFlag.BUILT_IN * request.built_in
            | StartFlag.OWN_DIRECTORY * (request.working_dir is None)
        )
        frame = encode_start(
            call.id,
            request.argv,
            user=user,
            working_dir=request.directory_in(working_dir),
            environment=request.environment,
            timeout=request.timeout,
            window=WINDOW_BYTES,
            flags=flags,
        )
        if frame is None:
            raise InvalidInput("the command and its environment have more than 4 MiB: pass it by a file or as input")
        self._register(call)
        self._send(frame, deadline, call)

    def ping(self, deadline: Deadline) -> int:
        """Ask for a sign of life. Returns how many commands and background processes run.

        Raises:
            ChannelBroken: the agent has ended.
            EngineTimeout: no answer before the deadline.
        """
        call = self.new_call()
        self._register(call)
        try:
            self._send(encode(ToAgent.PING, call.id), deadline)
            if not self.wait(call, lambda: call.pong is not None, deadline):
                raise EngineTimeout("the agent in the container did not answer in time")
        finally:
            self.forget(call)
        assert call.pong is not None
        return call.pong

    def send_input(self, call: Call, data: memoryview, deadline: Deadline) -> None:
        """Send input, at most `call.input_credit` bytes. No bytes end it."""
        call.sent_input(len(data))
        self._send(encode(ToAgent.INPUT, call.id, data), deadline)

    def send_signal(self, call: Call, number: int, deadline: Deadline) -> None:
        """Send a signal to the command's process group."""
        self._send(encode_number(ToAgent.SIGNAL, call.id, number), deadline)

    def kill(self, call: Call, deadline: Deadline) -> None:
        """Kill the command and all that it started."""
        self._send(encode(ToAgent.KILL, call.id), deadline)

    def give_credit(self, call: Call, size: int, deadline: Deadline) -> None:
        """Let the command's output go on."""
        call.allow(size)
        if not call.over:
            self._send(encode_number(ToAgent.CREDIT, call.id, size), deadline)

    def _send(self, data: bytes, deadline: Deadline, starts: Call | None = None) -> None:
        self._refuse_to_child()
        if self._broken is not None:
            self._raise_broken()
        # whole frames only: two senders must not mix theirs
        with held(self._sending, deadline, _SENDING, late=EngineTimeout):
            # the lock is re-entrant, so a signal's handler comes through it in the middle of a frame
            if self._is_sending or (starts and self._is_interrupted()):
                raise _refused_to_handler()
            try:
                self._is_sending = True
                # before the write: from its first byte on the agent may run the command
                if starts:
                    starts.sent = True
                self._stream.write(data, deadline)
            except BaseException as exc:
                if isinstance(exc, PodkitError | OSError) and not isinstance(exc, EngineTimeout):
                    # the agent may have said BYE, which proves that it read none of this frame
                    self._read_rest()
                self._break(f"it takes no input: {exc}")  # a frame may have been cut
                if isinstance(exc, EngineTimeout) or not isinstance(exc, PodkitError | OSError):
                    raise
                self._raise_broken()
            finally:
                self._is_sending = False

    def _read_rest(self) -> None:
        """Read the agent's last words. Perhaps it read nothing of the last frame."""
        with suppress(ChannelBroken):
            self.wait(Call(0), lambda: self._broken is not None, Deadline.after(_REST_SECONDS))

    def _register(self, call: Call) -> None:
        with self._state:
            self._calls[call.id] = call

    def forget(self, call: Call) -> None:
        """Drop a call, and all that still comes for it."""
        with self._state:
            self._calls.pop(call.id, None)

    # --- receiving ----------------------------------------------------------------------------------

    def wait(self, call: Call, ready: Callable[[], object], deadline: Deadline) -> bool:
        """Wait until `ready()` or the deadline. Reads for all calls if no other thread does.

        Returns:
            Whether it became ready.

        Raises:
            ChannelBroken: the stream has ended, and it is not ready.
        """
        self._refuse_to_child()
        wake = Wake()
        try:
            with self._state:
                self._waiting.add(wake)
                # a new tuple: the reader iterates over it without the lock
            call.waiting += (wake,)
            while True:
                if ready():
                    return True
                if self._broken is not None:
                    self._raise_broken(begun=call.begun)
                if self._is_interrupted():
                    raise _refused_to_handler()
                # idle -> reader for all threads; the others sleep until their frames have come or they take over
                if self._takes_over(wake):
                    if not self._read_what_is_there(deadline, ready):
                        return bool(ready())
                elif not wake.wait(deadline.at_most(threading.TIMEOUT_MAX).remaining) or deadline.expired:
                    return bool(ready())
        finally:
            # reader -> idle, also after an exception: nobody would read any more
            if self._reader is wake:
                self._reader = None
            try:
                with self._state:
                    self._waiting.discard(wake)
                    call.waiting = tuple(other for other in call.waiting if other is not wake)
            finally:
                self._pass_on()

    def _takes_over(self, duty: object) -> bool:
        """Become the reader if there is none. `duty` stands for the caller until it hands over."""
        with self._state:
            if self._reader is None:
                self._reader, self._reading_thread = duty, threading.get_ident()
        return self._reader is duty

    def _is_interrupted(self) -> bool:
        """Whether a signal's handler interrupted this thread while it was reading."""
        return self._reader is not None and self._reading_thread == threading.get_ident()

    def _pass_on(self) -> None:
        """Wake another thread as the next reader."""
        with self._state:
            other = next(iter(self._waiting), None)
        if other is not None and self._reader is None:
            other.set()

    def _read_what_is_there(self, deadline: Deadline, enough: Callable[[], object] = lambda: False) -> bool:
        """Read until `enough()`, the end or the deadline. False at the deadline."""
        latest = max(deadline.at, Deadline.after(_LOOK_SECONDS).at)
        while not enough() and self._broken is None:
            if not self._read(deadline) or time.monotonic() >= latest:
                return False
        return True

    def _read(self, deadline: Deadline) -> bool:
        """Read once. Return whether anything came in time, the end included."""
        try:
            if not self._stream.wait(deadline):  # an interruption here, such as Ctrl-C, loses nothing
                return False
            self._take_what_came()
        except (ChannelBroken, ProtocolViolation, PodkitError) as exc:
            self._break(str(exc))
        return True

    def _take_what_came(self) -> None:
        try:
            chunk = self._stream.read(_AT_ONCE)
            if chunk is None:
                return  # such as half a TLS record
            if not chunk.data:
                raise ChannelBroken("the agent has ended")
            self._heard_at = time.monotonic()
            if chunk.stream is Stream.STDERR or self._is_foreign:
                self._complain(chunk.data)
            else:
                self._dispatch_all(chunk.data)
        except (ChannelBroken, ProtocolViolation, PodkitError):
            raise
        except BaseException:  # bytes just read may be lost, and the frames' boundaries with them
            self._break("its reader was interrupted")
            raise

    def _dispatch_all(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._dispatch(frame)
        except ProtocolViolation:
            if self._greeting is not None:
                raise
            self._is_foreign = True  # and read to its end: only then the engine says how it came to that
            self._complain(data)

    def _complain(self, data: bytes) -> None:
        self._complaint = (self._complaint + data)[:_COMPLAINT_BYTES]

    def _dispatch(self, frame: Frame) -> None:
        if frame.id == 0:
            if frame.type is FromAgent.HELLO and self._greeting is None:
                self._greeting = frame.numbers()[0]
            elif frame.type is FromAgent.BYE:
                self._said_bye = True
            else:
                raise ProtocolViolation(f"a frame {frame.type.name} for the channel")
            return
        with self._state:
            call = self._calls.get(frame.id)
        if call is None:
            return  # of a command that its caller has given up
        # checked by the call, as any frame from inside
        call.accept(frame)
        if call.over:
            self.forget(call)
        for wake in call.waiting:
            wake.set()


def _refused_to_handler() -> SessionBusy:
    return SessionBusy(
        "a signal's handler interrupted this thread in a call to the same container, and cannot make another one "
        "there: have it set a flag, raise, or send a signal to a running command"
    )
