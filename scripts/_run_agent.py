"""Runs a program of the agent as far as that goes without a container, and without an engine.

Usage: _run_agent.py COMMAND..., which is the program, and where it needs one an emulator before it.
"""

import signal
import subprocess
import sys
import time

from podkit.agent.protocol import PROTOCOL, Frame, FrameDecoder, FromAgent, StartFlag, encode_start

AGENT = sys.argv[1:]


def main() -> None:
    signal.alarm(60)  # whatever hangs
    expect("the exit code without arguments", run().returncode, 64)
    begin = time.monotonic()
    expect("the exit code after the lifetime", run("sleep", "1").returncode, 0)
    expect("whether it ended early", time.monotonic() - begin < 1, wanted=False)
    expect("the exit code after SIGTERM", end_by_signal(), 143)
    frames = run_command("/bin/echo", "hello")
    expect("its protocol", frames[0].numbers(), (PROTOCOL,))
    expect("the output", b"".join(frame.data for frame in frames if frame.type is FromAgent.STDOUT), b"hello\n")
    expect("the command's end", frames[-1].numbers(), (0, 0))


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        sys.exit(f"{' '.join(AGENT)}: {what} is {found!r}, and should be {wanted!r}")


def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*AGENT, *arguments], capture_output=True)


def end_by_signal() -> int:
    # Blocked, and so inherited: else it might come before the program listens, and would do its work all the same.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    process = subprocess.Popen([*AGENT, "sleep", "60"])
    process.terminate()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    return process.wait()


def run_command(*argv: str) -> list[Frame]:
    start = encode_start(1, argv, user="", working_dir="/", environment={}, timeout=30, window=1024, flags=StartFlag(0))
    assert start is not None
    decoder, frames = FrameDecoder(), list[Frame]()
    with subprocess.Popen([*AGENT, "channel", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as agent:
        assert agent.stdin and agent.stdout
        agent.stdin.write(start)
        while not frames or frames[-1].type not in (FromAgent.EXIT, FromAgent.FAILED):
            data = agent.stdout.read(4096)
            if not data:
                sys.exit(f"{' '.join(AGENT)}: the channel ended after {frames}")
            frames += decoder.feed(data)
    return frames


if __name__ == "__main__":
    main()
