"""Plots as SVG text: numbers in, one picture out, for light, dark and print; no JavaScript, no network.

Each takes `title`; `caption`, which stands in the picture itself; and `simulated`, which says in the picture why its
figures are no clinical ones. What is not a number is left out, and where nothing is left the picture says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hf_synth.reports.axes import (
    Frame,
    Reference,
    Scale,
    along,
    dash_of,
    framed,
    legend,
    line,
    marker,
    path,
    references,
    sample,
    whisker,
    x_axis,
    y_axis,
)
from hf_synth.reports.drawing import COLOURS, finite, label, number, room_for, scale, spread

_NAN = float("nan")
_BANDS = 3  # with more curves than that, bands would hide each other
_DASHES = {False: ("", "9 3 2 3"), True: ("6 5", "2 4")}  # of curves: the first with a colour, the second


@dataclass(frozen=True)
class Interval:
    """One value with its interval, as a row of a plot.

    Args:
        name: what was measured.
        value: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        emphasis: whether the row stands out.
    """

    name: str
    value: float
    low: float
    high: float
    emphasis: bool = False


class Point(NamedTuple):
    """One point of a curve; without an interval low and high are nan."""

    x: float
    y: float
    low: float = _NAN
    high: float = _NAN


@dataclass(frozen=True)
class Series:
    """One curve.

    Args:
        name: what it shows.
        points: `Point`s or tuples (x, y) or (x, y, low, high), in any order.
        dashed: whether its line is dashed, e.g. for what was reckoned and not measured.
        emphasis: whether it stands out.
    """

    name: str
    points: Sequence[tuple[float, ...]]
    dashed: bool = False
    emphasis: bool = False


class Bin(NamedTuple):
    """Rows of like confidence: their mean confidence, the share that was right, how many they are, and its interval."""

    confidence: float
    accuracy: float
    n: int
    low: float = _NAN
    high: float = _NAN


# --- values with intervals ------------------------------------------------------------------------------------------
def interval_plot(
    rows: Sequence[Interval], *, title: str, axis: str, caption: str = "", width: int = 760, simulated: str = "",
    reference: float | None = None, digits: int = 3,
) -> str:  # fmt: skip
    """Draw values with intervals as a dot plot, values printed at the right.

    Args:
        axis: what the horizontal axis measures.
        reference: a value to compare with, drawn as a line; 0 is drawn where the axis crosses it.
        digits: decimals of the printed values.
    """
    step = 34
    frame = Frame(room_for([r.name for r in rows], width), width - 76, 8, 8 + step * max(1, len(rows)))
    values = [v for r in rows for v in (r.value, r.low, r.high)]
    low, high = spread([*values, *([] if reference is None else [reference])])
    x = scale(low, high, frame.left, frame.right)
    body = [x_axis(frame, x, low, high, axis)]
    for value in sorted({reference, 0.0 if low < 0 < high else None} - {None}, key=str):
        body += references(frame, x, x, [Reference("", float(value or 0), vertical=True)])
    for i, row in enumerate(rows):
        y, kind = frame.top + step * (i + 0.5), "mark" if row.emphasis else "dot"
        body.append(label(frame.left - 12, y, row.name, width=frame.left - 22, anchor="end", bold=row.emphasis, most=2))
        if len(finite((row.low, row.high))) == 2:
            body.append(line(f"l{kind}", (x(row.low), y), (x(row.high), y), thick=3))
        if math.isfinite(row.value):
            body.append(f'<circle class="{kind}" cx="{x(row.value)}" cy="{y}" r="5.5"/>')
        body.append(label(frame.right + 12, y, number(float(row.value), digits), bold=row.emphasis))
    return framed(body, width, frame.end + 42, bool(finite(r.value for r in rows)), title=title, caption=caption,
                  simulated=simulated, about=f"Dot plot of {len(rows)} values with intervals; {axis}")  # fmt: skip


# --- curves ---------------------------------------------------------------------------------------------------------
def curve_plot(
    series: Sequence[Series], *, title: str, x_axis: str, y_axis: str, log_x: bool = False, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), y_range: tuple[float, float] | None = None, width: int = 760,
    height: int = 340,
) -> str:  # fmt: skip
    """Draw curves with their intervals: learning curves, ratio curves.

    Up to three curves have bands, more have bars, set a little apart. Points that a log axis cannot show are counted in
    the picture.

    Args:
        log_x: whether the x axis is logarithmic.
        lines: values to compare with, dashed and named.
        y_range: ends of the y axis; from the values when None.
    """
    curves = [sorted(Point(*p) for p in s.points if _drawable(p, log_x)) for s in series]
    hidden = sum(len(finite(p[:2])) == 2 for s in series for p in s.points) - sum(map(len, curves))
    points = [p for curve in curves for p in curve]
    lines = [told for told in lines if math.isfinite(told.value) and not (told.vertical and log_x and told.value <= 0)]
    frame = Frame(62, width - 24, 26, height)
    flat = [told.value for told in lines if not told.vertical]
    low, high = y_range or spread([v for p in points for v in p[1:]] + flat)
    x_low, x_high = _ends([p.x for p in points] + [told.value for told in lines if told.vertical], log_x)
    x = scale(x_low, x_high, frame.left, frame.right, log=log_x)
    y = scale(low, high, frame.end, frame.top)
    body = [_y_axis(frame, y, low, high, y_axis), _x_axis(frame, x, x_low, x_high, x_axis, log=log_x)]
    band, entries, busy = len(series) <= _BANDS, [], []
    for i, (told, curve) in enumerate(zip(series, curves, strict=True)):
        thick, dash = 3.2 if told.emphasis else 2, _DASHES[told.dashed][min(1, i // COLOURS)]
        side = 0 if band else (i - (len(series) - 1) / 2) * 2.5
        places = [(x(p.x) + side, y(p.y)) for p in curve]
        body += _spread_of(i, curve, x, y, band=band, side=side)
        body.append(path(f"ls{i % COLOURS}", places, thick=thick, dash=dash))
        body += [marker(i, *place) for place in places]
        entries.append((told.name, sample(i, thick=thick, dash=dash)))
        busy += along(places)
    body += references(frame, x, y, lines, busy)
    named, end = legend(frame, entries)
    if hidden:
        caption = f"{caption} {hidden} point(s) at x = 0 or below are not shown on this axis.".strip()
    about = f"Curves of {', '.join(s.name for s in series)}: {y_axis} by {x_axis}"
    return framed([*body, *named], width, end, bool(points), title=title, caption=caption, simulated=simulated,
                  about=about)  # fmt: skip


_x_axis, _y_axis = x_axis, y_axis  # curve_plot has arguments of these names


def _drawable(point: Sequence[float], log_x: bool) -> bool:
    return len(finite(point[:2])) == 2 and not (log_x and point[0] <= 0)


def _ends(xs: Sequence[float], log: bool) -> tuple[float, float]:
    """Give the ends of the x axis, with some room."""
    low, high = (min(xs), max(xs)) if xs else (1.0, 10.0)
    if log:
        return (low * 0.9, high * 1.1) if high > low else (low / 2, high * 2)
    room = (high - low) * 0.03 or abs(high) * 0.5 or 1.0
    return low - room, high + room


def _spread_of(i: int, curve: Sequence[Point], x: Scale, y: Scale, *, band: bool, side: float) -> list[str]:
    """Draw the band or the bars of one curve."""
    colour = f"s{i % COLOURS}"
    known = [p for p in curve if len(finite(p)) == 4]
    if band and len(known) > 1:
        around = [(x(p.x), y(p.high)) for p in known] + [(x(p.x), y(p.low)) for p in reversed(known)]
        corners = " ".join(f"{a},{b}" for a, b in around)
        return [f'<polygon class="{colour}" fill-opacity="0.16" points="{corners}"/>']
    return [whisker(f"l{colour}", x(p.x) + side, y(p.low), y(p.high)) for p in known]


def reliability_plot(
    bins: Mapping[str, Sequence[Bin]], *, title: str, caption: str = "", simulated: str = "", width: int = 560
) -> str:
    """Draw how often labels are right by how sure the model was; on the diagonal it is as sure as it should be.

    Args:
        bins: bins of each state, e.g. {"before (ECE 0.12)": ..., "after (ECE 0.04)": ...}; markers grow with the rows.
    """
    frame = Frame(62, width - 24, 26, width - 130)
    x, y = scale(0, 1, frame.left, frame.right), scale(0, 1, frame.end, frame.top)
    body = [y_axis(frame, y, 0, 1, "share of rows whose label is right"),
            x_axis(frame, x, 0, 1, "probability of the chosen label"),
            line("ledge", (x(0), y(0)), (x(1), y(1)), dash="5 4", thick=1.5)]  # fmt: skip
    most = max((b.n for rows in bins.values() for b in rows), default=1)
    entries = []
    for i, (name, rows) in enumerate(bins.items()):
        known, kind = [b for b in rows if len(finite(b[:2])) == 2], f"ls{i % COLOURS}"
        side = 2.5 * (2 * i - len(bins) + 1)
        body.append(path(kind, ((x(b.confidence) + side, y(b.accuracy)) for b in known), thick=1.6, dash=dash_of(i)))
        for b in known:
            at = x(b.confidence) + side
            body += [whisker(kind, at, y(b.low), y(b.high), 1.2)] if len(finite(b[3:])) == 2 else []
            body.append(marker(i, at, y(b.accuracy), 3 + 4 * math.sqrt(b.n / max(1, most))))
        entries.append((name, sample(i, dash=dash_of(i))))
    named, end = legend(frame, entries)
    about = f"Reliability diagram of {', '.join(bins)}"
    return framed([*body, *named], width, end, any(bins.values()), title=title, caption=caption, simulated=simulated,
                  about=about)  # fmt: skip
