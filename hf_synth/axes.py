"""What plots with axes share: lines, markers, axes whose numbers do not touch, legends, the empty plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hf_synth.drawing import COLOURS, DASHES, label, log_ticks, picture, text_width, tick_text, ticks

Scale = Callable[[float], float]
Draw = Callable[[float, float], str]  # draws a piece of a legend, from its left end at half its height


class Frame(NamedTuple):
    """The box that values are drawn in, in pixels."""

    left: float
    right: float
    top: float
    end: float


class Reference(NamedTuple):
    """A line to compare with: at a value of the y axis, or of the x axis where it is vertical."""

    name: str
    value: float
    vertical: bool = False


# --- strokes and markers --------------------------------------------------------------------------------------------


def line(kind: str, a: tuple[float, float], b: tuple[float, float], *, thick: float = 1, dash: str = "") -> str:
    """Draw a line between two places."""
    return (
        f'<line class="{kind}" stroke-width="{thick:g}"{_dashes(dash)} '
        f'x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'
    )


def path(kind: str, places: Iterable[tuple[float, float]], *, thick: float = 2, dash: str = "") -> str:
    """Draw a line through places."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{kind}" fill="none" stroke-width="{thick:g}"{_dashes(dash)} points="{points}"/>'


def whisker(kind: str, x: float, low: float, high: float, thick: float = 1.6) -> str:
    """Draw a vertical interval with its two ends."""
    ends = "".join(line(kind, (x - 3, y), (x + 3, y), thick=thick) for y in (low, high))
    return line(kind, (x, low), (x, high), thick=thick) + ends


def dash_of(i: int) -> str:
    """Give the dashes of a series: those that share a colour differ in them."""
    return DASHES[(i + i // COLOURS) % len(DASHES)]


def _dashes(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""


def marker(i: int, x: float, y: float, size: float = 4.5) -> str:
    """Draw the marker of a series: circle, square, diamond, triangle up, triangle down, ring."""
    colour, r = f"s{i % COLOURS}", size * 1.25
    if i % 6 == 0:
        return f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    if i % 6 == 5:
        return f'<circle class="paper l{colour}" stroke-width="2" cx="{x:.1f}" cy="{y:.1f}" r="{size - 0.5:.1f}"/>'
    corners = {
        1: ((-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)),
        2: ((0, -1), (1, 0), (0, 1), (-1, 0)),
        3: ((0, -1), (1, 0.8), (-1, 0.8)),
        4: ((0, 1), (1, -0.8), (-1, -0.8)),
    }[i % 6]
    points = " ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in corners)
    return f'<polygon class="{colour}" points="{points}"/>'


# --- axes -----------------------------------------------------------------------------------------------------------


def x_axis(frame: Frame, x: Scale, low: float, high: float, name: str, *, log: bool = False) -> str:
    """Draw grid, tick numbers that do not touch, and the name under a horizontal axis."""
    parts, free = [], -math.inf
    for tick in log_ticks(low, high) if log else ticks(low, high):
        at, said = x(tick), tick_text(tick)
        parts.append(line("lgrid", (at, frame.top), (at, frame.end)))
        if at - text_width(said) / 2 > free:
            parts.append(label(at, frame.end + 14, said, anchor="middle", fill="muted"))
            free = at + text_width(said) / 2 + 6
    middle, room = (frame.left + frame.right) / 2, frame.right - frame.left
    return "".join([*parts, label(middle, frame.end + 33, name, anchor="middle", width=room + 40)])


def y_axis(frame: Frame, y: Scale, low: float, high: float, name: str) -> str:
    """Draw grid, tick numbers and, above them, the name of a vertical axis."""
    parts = [label(16, 8, name, width=frame.right - 16)]
    for tick in ticks(low, high):
        parts.append(line("lgrid", (frame.left, y(tick)), (frame.right, y(tick))))
        parts.append(label(frame.left - 8, y(tick), tick_text(tick), anchor="end", fill="muted"))
    return "".join(parts)


def references(frame: Frame, x: Scale, y: Scale, lines: Sequence[Reference]) -> list[str]:
    """Draw named lines to compare with; the names of vertical ones stand below each other, so that none touch."""
    drawn = []
    for i, told in enumerate(sorted(lines, key=lambda told: (not told.vertical, told.value))):
        if told.vertical:
            at, late = x(told.value), x(told.value) > (frame.left + frame.right) / 2
            room = (at - frame.left if late else frame.right - at) - 8
            drawn.append(line("ledge", (at, frame.top), (at, frame.end), dash="5 4", thick=1.5))
            drawn.append(label(at + (-5 if late else 5), frame.top + 9 + 16 * i, told.name, size=12, fill="muted",
                               anchor="end" if late else "start", width=room))  # fmt: skip
        else:
            at = y(told.value)
            drawn.append(line("ledge", (frame.left, at), (frame.right, at), dash="5 4", thick=1.5))
            room = frame.right - frame.left - 8
            drawn.append(label(frame.right - 4, at - 9, told.name, anchor="end", size=12, fill="muted", width=room))
    return drawn


def legend(frame: Frame, entries: Sequence[tuple[str, Draw]], *, below: float = 46) -> tuple[list[str], float]:
    """Lay out a legend in lines under a plot; give its elements and where it ends."""
    y = frame.end + below
    if not entries:
        return [], y
    drawn, x, y = [], frame.left, y + 10
    for name, draw in entries:
        wide = min(60 + text_width(name, 12.5), frame.right - frame.left)
        if x > frame.left and x + wide > frame.right + 8:
            x, y = frame.left, y + 22
        drawn += [draw(x, y), label(x + 42, y, name, size=12.5, width=wide - 42)]
        x += wide
    return drawn, y + 16


def sample(i: int, *, thick: float = 2, dash: str = "", with_marker: bool = True) -> Draw:
    """Give what draws the piece of a series in a legend."""

    def draw(x: float, y: float) -> str:
        drawn = line(f"ls{i % COLOURS}", (x, y), (x + 34, y), thick=thick, dash=dash)
        return drawn + (marker(i, x + 17, y) if with_marker else "")

    return draw


def swatch(i: int) -> Draw:
    """Give what draws the piece of a part of a bar in a legend."""
    kind = f"p{i % COLOURS} ledge"
    return lambda x, y: f'<rect class="{kind}" stroke-width="1" x="{x + 8}" y="{y - 7}" width="22" height="14"/>'


def framed(
    body: Sequence[str], width: int, height: float, known: bool, *, title: str, caption: str, simulated: str, about: str
) -> str:
    """Give the picture, or one that says that there is nothing to show."""
    if not known:
        body, height, about = [label(16, 18, "nothing to show: no value was measured", fill="muted")], 36, "No value"
    return picture(body, width=width, height=height, title=title, caption=caption, simulated=simulated, about=about)
