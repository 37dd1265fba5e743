"""What plots with axes share: lines, markers, axes whose numbers do not touch, legends, the empty plot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hf_synth.reports.drawing import COLOURS, DASHES, label, log_ticks, picture, text_width, tick_text, ticks

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
    """Give the dashes of a series that has no markers, or is one of a few states: those that share a colour differ."""
    return DASHES[(i + i // COLOURS) % len(DASHES)]


def along(places: Sequence[tuple[float, float]], steps: int = 12) -> list[tuple[float, float]]:
    """Give places along a line, close enough to know what it covers."""
    pairs = itertools.pairwise(places)
    return [*places, *((a + (c - a) * i / steps, b + (d - b) * i / steps)
                       for (a, b), (c, d) in pairs for i in range(1, steps))]  # fmt: skip


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


def x_axis(
    frame: Frame, x: Scale, low: float, high: float, name: str, *, log: bool = False, whole: bool = False
) -> str:
    """Draw grid, tick numbers that do not touch, and the name under a horizontal axis.

    Args:
        whole: whether only whole numbers are marked.
    """
    parts, free = [], -math.inf
    for tick in log_ticks(low, high) if log else ticks(low, high):
        if whole and tick != int(tick):
            continue
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


def references(
    frame: Frame, x: Scale, y: Scale, lines: Sequence[Reference], busy: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Draw named lines to compare with; their names stand where they cover least.

    Args:
        busy: places of what is drawn already, in pixels.
    """
    drawn, names = [], []
    taken: list[tuple[float, float, float, float]] = []
    for told in lines:
        wide = min(text_width(told.name, 12), frame.right - frame.left - 10)
        if told.vertical:
            a, b = (x(told.value), frame.top), (x(told.value), frame.end)
            rows = [frame.top + 10 + 16 * i for i in range(round((frame.end - frame.top - 10) / 16))]
            corners = [(left, row) for row in rows for left in (a[0] + 6, a[0] - 6 - wide)]
        else:
            a, b = (frame.left, y(told.value)), (frame.right, y(told.value))
            lefts = [frame.left + 4 + (frame.right - frame.left - 8 - wide) * i / 4 for i in range(5)]
            corners = [(left, a[1] + side) for side in (-9, 9) for left in lefts]
        drawn.append(line("ledge", a, b, dash="5 4", thick=1.5))
        if told.name:
            boxes = [(left, row - 8, left + wide, row + 8) for left, row in corners]
            best = min(boxes, key=lambda box: _covered(box, frame, taken, busy))
            taken.append(best)
            names.append(label(best[0], best[1] + 8, told.name, size=12, fill="muted halo", width=wide + 1))
    return drawn + names


def _covered(
    box: tuple[float, float, float, float],
    frame: Frame,
    taken: Sequence[tuple[float, float, float, float]],
    busy: Sequence[tuple[float, float]],
) -> float:
    """Tell how bad a place for words is: outside the frame, over other words, over what is drawn."""
    left, top, right, end = box
    outside = max(0.0, frame.left - left) + max(0.0, right - frame.right) + max(0.0, frame.top - 2 - top)
    over = sum(left < r and right > a and top < e and end > t for a, t, r, e in taken)
    hidden = sum(left - 4 <= x <= right + 4 and top - 4 <= y <= end + 4 for x, y in busy)
    return outside * 100 + over * 1000 + hidden


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
