"""Programs that misbehave, for the shells of Debian and of busybox alike."""

from __future__ import annotations

MARK = "98765"
"""Stands in the command line of everything that a program below leaves running."""

SURVIVORS = {
    "plain": f"sleep {MARK}",
    "child": f"sleep {MARK} & wait",
    "sigterm_ignored": f"trap '' TERM INT HUP; while :; do sleep {MARK}; done",
    "setsid": f"setsid sleep {MARK} & sleep {MARK}",
    "double_fork": f"(sleep {MARK} &); (sh -c 'sleep {MARK} &' &); sleep {MARK}",
    "nohup": f"nohup sleep {MARK} > /dev/null 2>&1 & sleep {MARK}",
    "env_i_setsid": f"env -i setsid sleep {MARK} & sleep {MARK}",
    "stopped_child": f"sleep {MARK} & kill -STOP $!; sleep {MARK}",
}
"""Ways of not ending when asked; `timeout -k` leaves half of them alive."""

FORK_STORM = f"(while :; do setsid sleep {MARK} & done) 2> /dev/null & exec sleep {MARK}"
"""Takes all processes that there may be; its own shell needs no further one."""
