"""One picture of all ratios, as SVG; pure code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.benchmarks.measure import Measurement
from tests.benchmarks.report import described, short

WIDTH = 960
_LEFT, _RIGHT, _TOP, _ROW, _BAR = 420, 80, 98, 28, 14
_LEAST, _MOST = 0.3, 300.0  # times better
_TIMES = "\u00d7"

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e } .title { font-size: 17px; font-weight: 600 } .end { text-anchor: end }
.middle { text-anchor: middle } .ground { fill: #ffffff } .grid { stroke: #d1d9e0 } .one { stroke: #59636e }
.good { fill: #1a7f37 } .fair { fill: #0969da } .bad { fill: #cf222e } .gate { stroke: #1f2328; stroke-width: 2 }
.aim { stroke: #1f2328; stroke-width: 2; stroke-dasharray: 3 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .ground { fill: #0d1117 } .grid { stroke: #3d444d }
  .one { stroke: #9198a1 } .good { fill: #3fb950 } .fair { fill: #4493f8 } .bad { fill: #f85149 }
  .gate, .aim { stroke: #f0f6fc }
}
"""


def position(times_better: float) -> float:
    """Give the place of a value on the logarithmic axis; what is off it stands at its end."""
    inside = min(max(times_better, _LEAST), _MOST)
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * math.log(inside / _LEAST) / math.log(_MOST / _LEAST)


def picture(about: Mapping[str, Any], measurements: Sequence[Measurement]) -> str:
    """Draw a bar for each measurement, from "as good" to how many times better it is."""
    bottom = _TOP + _ROW * len(measurements)
    height = bottom + 72
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>podkit beside the plain Docker SDK</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        _text(20, 30, "How many times better than the plain Docker SDK", "title"),
        _text(20, 50, "Medians of alternated rounds, logarithmic axis. Solid mark: gate, dashed mark: aim.", "small"),
        _text(20, 67, "Green: the aim holds. Blue: the gate holds. Red: the gate is missed.", "small"),
        *_grid(bottom),
    ]
    for number, one in enumerate(measurements):
        lines += _bar(one, _TOP + number * _ROW)
    for number, line in enumerate(described(about)):
        lines.append(_text(20, bottom + 42 + 18 * number, line, "small"))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _grid(bottom: int) -> list[str]:
    lines = []
    for value in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        x = position(value)
        lines.append(_line(x, _TOP - 8, bottom, "one" if value == 1 else "grid"))
        lines.append(_text(x, bottom + 16, f"{value:g}{_TIMES}", "small middle"))
    return lines


def _bar(one: Measurement, y: int) -> list[str]:
    target = one.target
    begin, end = sorted((position(1), position(target.times_better(one.ratio))))
    colour = "good" if one.aim_holds else "fair" if one.gate_holds else "bad"
    top, middle = y + (_ROW - _BAR) // 2 - 4, y + _ROW // 2
    said = f"{short(target.times_better(one.ratio))}{_TIMES}"
    return [
        _text(_LEFT - 14, middle, target.title.replace("`", ""), "end"),
        f'<rect class="{colour}" x="{begin:.1f}" y="{top}" width="{max(1.0, end - begin):.1f}" height="{_BAR}"/>',
        _line(position(target.times_better(target.gate)), top - 4, top + _BAR + 4, "gate"),
        _line(position(target.times_better(target.aim)), top - 4, top + _BAR + 4, "aim"),
        _text(WIDTH - 16, middle, said, "end"),
    ]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
