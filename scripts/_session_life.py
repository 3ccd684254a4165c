"""Draws docs/session-life.svg from podkit's own decisions: `python scripts/_session_life.py > docs/session-life.svg`.

Nothing in it is written down here but the events. Each happens to a session on the fake engine, once before the next
command and once before a round of the health monitor, and the answers are drawn.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import PodkitError
from podkit.monitors.health import ContainerHealthMonitor
from podkit.testing import FakeBackend

Event = Callable[[FakeBackend, str], object]

EVENTS: dict[str, Event] = {
    "its lifetime ends": lambda fake, id: fake.end(id, 0),
    "docker stop": lambda fake, id: fake.end(id, 143),
    "its main process fails": lambda fake, id: fake.end(id, 1),
    "docker kill": lambda fake, id: fake.end(id, 137),
    "out of memory": lambda fake, id: fake.end(id, 137, oom=True),
    "docker rm": lambda fake, id: fake.vanish(id),
    "docker pause": lambda fake, id: fake.pause(id),
}

KEPT = "the same container runs"
ANEW = "a new container runs"
ENDINGS = {
    KEPT: ("same id, same files; processes", "and tmpfs mounts are lost"),
    ANEW: ("same name, configuration, ports,", "mounts and workspace; other", "files are lost"),
}


class Row(NamedTuple):
    """What follows an event."""

    event: str
    state: str
    by_command: str
    by_monitor: str


class Life:
    """One session on an engine of its own, with a monitor whose rounds are called by hand."""

    def __init__(self) -> None:
        self.fake = FakeBackend()
        self.fake.connect()
        containers = SimpleContainerManager(self.fake, "podkit", None)
        self.monitor = ContainerHealthMonitor(containers)
        self.sessions = BaseSessionManager(containers)
        self.monitor.register(self.sessions)
        self.session = self.sessions.create_session("bob", "1", ContainerConfig(image="python"))
        assert self.session.container_id is not None
        self.id = self.session.container_id

    def state(self) -> str:
        try:
            info = self.fake.inspect_workload(self.id)
        except PodkitError:
            return "gone"
        return f"{info.status}" if info.exit_code is None else f"{info.status} ({info.exit_code})"

    def after_a_command(self) -> str:
        try:
            self.sessions.execute_command("bob", "1", "true")
        except PodkitError as exc:
            return type(exc).__name__
        return KEPT if self.session.container_id == self.id else ANEW

    def after_a_round(self) -> str:
        before = self.state()
        self.monitor.tick()
        if self.session.container_id is None:
            return f"marks the session {self.session.status.upper()}"
        return "leaves it alone" if self.state() == before else "starts it"


def row(event: str, happen: Event) -> Row:
    one, other = Life(), Life()
    for life in (one, other):
        happen(life.fake, life.id)
    return Row(event, one.state(), one.after_a_command(), other.after_a_round())


# --- the drawing ---------------------------------------------------------------------------------------

WIDTH, TOP, ROW_HEIGHT = 960, 120, 56
STATE_X, STATE_WIDTH, END_X, END_WIDTH = 260, 170, 710, 230
MONITOR_WIDTH = 190
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px; fill: #59636e }
.title { font-size: 17px; font-weight: 600 } .bold { font-weight: 600 } .middle { text-anchor: middle }
.ground { fill: #ffffff } .box { fill: #f6f8fa; stroke: #59636e } .arrow { fill: none; stroke: #59636e }
.kept { fill: #dafbe1; stroke: #1a7f37 } .anew { fill: #fff8c5; stroke: #9a6700 }
.error { fill: #ffebe9; stroke: #cf222e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .ground { fill: #0d1117 } .box { fill: #151b23; stroke: #9198a1 }
  .arrow { stroke: #9198a1 } .kept { fill: #12261e; stroke: #3fb950 } .anew { fill: #272115; stroke: #d29922 }
  .error { fill: #25171c; stroke: #f85149 }
}
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float, straight: float = 0) -> str:
    """A curve that leaves and arrives level, after a straight piece for words to stand on."""
    half = (x1 + straight + x2) / 2
    path = f"M{x1:g} {y1:g} h{straight:g} C{half:g} {y1:g} {half:g} {y2:g} {x2:g} {y2:g}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>'


def endings(rows: list[Row], bottom: float) -> dict[str, tuple[float, float]]:
    """Return where each ending stands: its top and its height, beside the rows that lead to it."""
    places: dict[str, tuple[float, float]] = {}
    edge = float(TOP)
    for ending in dict.fromkeys(one.by_command for one in rows):
        middles = [TOP + (number + 0.5) * ROW_HEIGHT for number, one in enumerate(rows) if one.by_command == ending]
        height = 34 + 17 * len(ENDINGS.get(ending, ("",)))
        top = max(edge, sum(middles) / len(middles) - height / 2)
        places[ending] = min(top, bottom - height), height
        edge = places[ending][0] + height + 10
    return places


def draw(rows: list[Row]) -> str:
    bottom = TOP + ROW_HEIGHT * len(rows)
    middle = (TOP + bottom) / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 24}" role="img">',
        "<title>The life of a session</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="arrow" d="M1 1 L7 4 L1 7"/></marker></defs>',
        f'<rect class="ground" width="{WIDTH}" height="{bottom + 24}"/>',
        text(20, 30, "The life of a session", "title"),
        text(20, 50, "What ends its container, and how the next command or the health monitor goes on.", "small"),
        text(STATE_X + STATE_WIDTH / 2, TOP - 14, "its container", "bold middle"),
        text(STATE_X + STATE_WIDTH + 24 + 60, TOP - 14, "health monitor", "bold middle"),
        text(END_X + END_WIDTH / 2, TOP - 14, "next command", "bold middle"),
        text(85, middle - 70, "create_session", "small middle"),
        arrow(85, middle - 64, 85, middle - 24),
        box(30, middle - 22, 110, 44, "kept"),
        text(85, middle + 5, "running", "bold middle"),
        arrow(85, middle + 22, 85, middle + 62),
        text(85, middle + 78, "close, or expired:", "small middle"),
        text(85, middle + 94, "container removed,", "small middle"),
        text(85, middle + 110, "workspace kept", "small middle"),
    ]
    places = endings(rows, bottom)
    for ending, (top, height) in places.items():
        kind = {KEPT: "kept", ANEW: "anew"}.get(ending, "error")
        lines += [box(END_X, top, END_WIDTH, height, kind), text(END_X + 14, top + 22, ending, "bold")]
        for number, line in enumerate(ENDINGS.get(ending, ("unpausing it is up to you",))):
            lines.append(text(END_X + 14, top + 42 + 17 * number, line, "small"))
    for number, one in enumerate(rows):
        y = TOP + (number + 0.5) * ROW_HEIGHT
        top, height = places[one.by_command]
        lines += [
            arrow(140, middle, STATE_X, y),
            text(STATE_X + STATE_WIDTH / 2, y - 4, one.event, "middle"),
            text(STATE_X + STATE_WIDTH / 2, y + 13, one.state, "small middle"),
            text(STATE_X + STATE_WIDTH + 24, y - 6, one.by_monitor, "small"),
            arrow(STATE_X + STATE_WIDTH, y, END_X, top + height / 2, straight=MONITOR_WIDTH),
        ]
        lines.insert(-5, box(STATE_X, y - 20, STATE_WIDTH, 40, "box"))
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    logging.getLogger("podkit").addHandler(logging.NullHandler())
    sys.stdout.write(draw([row(event, happen) for event, happen in EVENTS.items()]))
