"""The first process of a private engine's namespaces: starts the engine, signals it, and outlives it.

Run by `private_engine.py` below `unshare`. It reads commands from its standard input, one a line, and answers each
with one line. At the end of the input it ends, and with it, by the kernel's hand, all that runs in its namespaces: so
nothing is left of a test run that was killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def main() -> None:
    log, hidden, *disk = sys.argv[1:]
    # the sockets of the host's shims are hidden, and ours are gone with us
    subprocess.run(["mount", "-t", "tmpfs", "private-engine", hidden], check=True)
    if disk:
        subprocess.run(["mount", "-o", "loop", *disk], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    keeper = Keeper(log)
    threading.Thread(target=keeper.reap, daemon=True).start()
    for line in sys.stdin:
        what, *arguments = line.rstrip("\n").split("\t")
        print(keeper.obey(what, arguments), flush=True)


class Keeper:
    """Holds one engine, or none.

    Args:
        log: the file that the engine writes to.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._pid = 0
        self._changed = threading.Condition()  # guards _pid, and tells of its end

    def obey(self, what: str, arguments: list[str]) -> str:
        """Do what is asked for and say how that went."""
        if what == "start":
            return self._start(arguments)
        if what == "signal":
            return self._signal(int(arguments[0]))
        if what == "wait":
            with self._changed:
                return "ended" if self._changed.wait_for(lambda: not self._pid, float(arguments[0])) else "runs"
        return "runs" if self._pid else "ended"

    def _start(self, command: list[str]) -> str:
        with self._changed:
            self._pid = os.fork()
            if not self._pid:
                os.setsid()
                output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                null = os.open(os.devnull, os.O_RDONLY)
                for theirs, ours in enumerate((null, output, output)):
                    os.dup2(ours, theirs)
                os.execvp(command[0], command)
        return "started"

    def _signal(self, number: int) -> str:
        with self._changed:
            if not self._pid:
                return "ended"
            os.kill(self._pid, number)
            if number == signal.SIGSTOP:
                os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOWAIT)
        return "signalled"

    def reap(self) -> None:
        """Collect the engine, and whatever is left by those whose parent has ended, as a first process must."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        while True:
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
            with self._changed:
                while found := self._collect():
                    if found == self._pid:
                        self._pid = 0
                        self._changed.notify_all()

    def _collect(self) -> int:
        try:
            return os.waitpid(-1, os.WNOHANG)[0]
        except ChildProcessError:
            return 0


if __name__ == "__main__":
    main()
