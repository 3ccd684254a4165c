"""The quantities that are measured, and what is wanted of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One quantity: podkit's figure divided by a plain one.

    Attributes:
        key: its short name.
        title: what is divided by what.
        gate: the ratio that must be reached.
        aim: the ratio that is wanted.
        unit: of both figures.
        more_is_better: a rate: the ratio is to be at least what is wanted, else at most.
    """

    key: str
    title: str
    gate: float
    aim: float
    unit: str = "ms"
    more_is_better: bool = False

    def holds(self, ratio: float, wanted: float) -> bool:
        """Whether a ratio is as good as what is wanted."""
        return ratio >= wanted if self.more_is_better else ratio <= wanted

    def times_better(self, ratio: float) -> float:
        """Turn a ratio into one that is greater the better it is."""
        return ratio if self.more_is_better else 1 / ratio


TARGETS = [
    Target("command", "a command in a live session ÷ `exec_run`", 0.06, 0.025),
    Target("command-host", "a command in a live session ÷ `subprocess.run` on the host", 2.5, 1.2),
    Target("rate-16", "commands/s, 16 threads on 16 sessions ÷ `exec_run`", 15, 60, "/s", more_is_better=True),
    Target("rate-4", "commands/s, 4 threads on one session ÷ `exec_run`", 25, 90, "/s", more_is_better=True),
    Target("cpu", "client CPU per command ÷ `exec_run`", 0.10, 0.03),
    Target("output", "32 MB of output, streams apart ÷ `exec_run(demux=True)`", 0.25, 0.1),
    Target("kill", "kill a running command ÷ exec of `kill`", 0.12, 0.04),
    Target("file-1k", "1 KB write + read ÷ put + get archive", 0.12, 0.01),
    Target("file-1m", "1 MB write ÷ put archive", 0.35, 0.05),
    Target("file-100m", "100 MB write ÷ put archive", 1.15, 0.8),
    Target("tree", "1,000 files of 1 KB, up and down ÷ put + get archive", 1.0, 0.5),
    Target("process-start", "start a background process ÷ `exec_run(detach=True)`", 0.1, 0.03),
    Target("process-list", "status of 50 processes ÷ `exec_run` of what `ps` reads", 0.1, 0.03),
    Target("open", "open to first result, cold ÷ create + start + `exec_run`", 1.05, 0.75),
    Target("close", "close, waited for ÷ forced remove", 1.15, 1.0),
    Target("list", "list 100 sessions by label ÷ `containers.list`", 0.10, 0.055),
    Target("crowd", "a command with 100 sessions running ÷ with 1", 1.3, 1.05),
    Target("import", "`import podkit` + session object ÷ `import docker` + client", 0.5, 0.2),
]
