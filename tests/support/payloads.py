"""Commands that do not want to end: for the shells of Debian and of busybox, and a few for Python.

Each says `ready` once it is as bad as it gets. They are for containers only: some kill whatever they can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARK = "98765"
"""Stands in the command line of what the payloads leave running."""

PIDS_LIMIT = 128
"""For the containers of the payloads: a fork storm is to come to its end."""

_READY = "echo ready"
_STAY = f"{_READY}; sleep {MARK}"

_PTRACE = """
import ctypes, os, signal, sys
TRACEME, ATTACH = 0, 16
ptrace = ctypes.CDLL(None, use_errno=True).ptrace

def sleeper():
    os.execvp("sleep", ["sleep", sys.argv[1]])

if os.fork() == 0:
    ptrace(TRACEME, 0, None, None)  # stops when it becomes another program
    sleeper()
read, write = os.pipe()
if os.fork() == 0:
    grandchild = os.fork()
    if grandchild == 0:
        sleeper()
    os.write(write, b"%d" % grandchild)
    signal.pause()
if ptrace(ATTACH, int(os.read(read, 20)), None, None):
    sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")
print("ready", flush=True)
signal.pause()
"""

_FORK_BOMB = """
import os, sys
print("ready", flush=True)
while True:
    try:
        if os.fork() == 0 and os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""

_THREADS = """
import os, sys, threading

begun = threading.Event()

def fork():
    begun.wait()
    while True:
        try:
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", sys.argv[1]])
        except OSError:
            pass

for _ in range(4):
    threading.Thread(target=fork).start()
print("ready", flush=True)
begun.set()
"""


_FIRST_THREAD_ENDED = """
import ctypes, threading, time
def live():
    while True:
        time.sleep(0.05)
threading.Thread(target=live).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(0)
"""
"""/proc shows a zombie, and it lives."""


@dataclass(frozen=True)
class Payload:
    """A command that does not want to end.

    Attributes:
        command: what to run.
        attacks_agent: it is about podkit's own processes: there is nothing to compare it with.
        restarts: it takes its supervisor or the channel with it, so that the container is restarted.
        spins: it wants all processors for more processes than there are, and so does whoever ends it: on a busy machine
            the agent may give up, and the container is restarted after all.
        takes_all: it makes processes until the container may have no more: nothing can be started beside it.
        needs_python: it runs in the Debian image only.
    """

    command: str | Sequence[str]
    attacks_agent: bool = False
    restarts: bool = False
    spins: bool = False
    takes_all: bool = False
    needs_python: bool = False


def _python(code: str) -> list[str]:
    return ["python3", "-c", code, MARK]


PAYLOADS = {
    "plain": Payload(_STAY),
    "sigterm ignored": Payload(f"trap '' TERM INT HUP QUIT; {_READY}; while :; do sleep {MARK}; done"),
    "setsid": Payload(f"setsid sleep {MARK} & {_STAY}"),
    "double fork": Payload(f"(setsid sh -c 'sleep {MARK} & sleep 0' &); {_STAY}"),
    "nohup": Payload(f"nohup sleep {MARK} > /dev/null 2>&1 & {_STAY}"),
    "env -i setsid": Payload(f"env -i setsid sleep {MARK} & {_STAY}"),
    "stopped": Payload(f"sleep {MARK} & kill -STOP $!; {_STAY}"),
    "all descriptors closed": Payload(
        f"(setsid sh -c 'exec sleep {MARK}' <&- >&- 2>&- &); {_READY}; exec <&- >&- 2>&-; exec sleep {MARK}",
    ),
    "fork storm": Payload(
        f"(while :; do setsid sleep {MARK} & done) 2> /dev/null & {_READY}; exec sleep {MARK}",
        takes_all=True,
    ),
    "fork bomb": Payload(_python(_FORK_BOMB), spins=True, takes_all=True, needs_python=True),
    "first thread ended": Payload(_python(_FIRST_THREAD_ENDED), needs_python=True),
    "threads that fork": Payload(_python(_THREADS), spins=True, takes_all=True, needs_python=True),
    "ptrace": Payload(_python(_PTRACE), needs_python=True),
    "its supervisor stopped": Payload(f"setsid sleep {MARK} & kill -STOP $PPID; {_STAY}", attacks_agent=True),
    "its supervisor killed": Payload(
        f"setsid sleep {MARK} & {_READY}; kill -KILL $PPID; sleep {MARK}", attacks_agent=True, restarts=True
    ),
    "all killed that it may kill": Payload(f"{_READY}; kill -KILL -1; sleep {MARK}", attacks_agent=True, restarts=True),
}
"""By name; run as root, where all of them may do what they want."""


def for_image(image: str) -> dict[str, Payload]:
    """Those that run in the image `"debian"` or `"busybox"`."""
    return {name: payload for name, payload in PAYLOADS.items() if image == "debian" or not payload.needs_python}
