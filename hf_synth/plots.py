"""Plots as SVG text: numbers in, one picture out, for light, dark and print; no JavaScript, no network.

Each takes `title`; `caption`, which stands in the picture itself; and `simulated`, which says in the picture why its
figures are no clinical ones. What is not a number is left out, and where nothing is left the picture says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hf_synth.axes import (
    Frame,
    Reference,
    Scale,
    dash_of,
    framed,
    legend,
    line,
    marker,
    path,
    references,
    sample,
    swatch,
    whisker,
    x_axis,
    y_axis,
)
from hf_synth.drawing import COLOURS, LEVELS, finite, label, number, scale, spread, text_width

__all__ = ["Bin", "Interval", "Point", "Reference", "Series", "bar_plot", "curve_plot", "histogram_plot",
           "interval_plot", "matrix_plot", "reliability_bins", "reliability_plot", "wilson"]  # fmt: skip

_NAN = float("nan")
_BANDS = 3  # with more curves than that, bands would hide each other


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
        dashed: whether its line is dashed wherever it stands, e.g. for what was reckoned and not measured.
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
    reference: float | None = None,
) -> str:  # fmt: skip
    """Draw values with intervals as a dot plot, values printed at the right.

    Args:
        axis: what the horizontal axis measures.
        reference: a value to compare with, drawn as a line; 0 is drawn where the axis crosses it.
    """
    step = 34
    frame = Frame(_room_for([r.name for r in rows], width), width - 76, 8, 8 + step * max(1, len(rows)))
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
        body.append(label(frame.right + 12, y, number(float(row.value)), bold=row.emphasis))
    return framed(body, width, frame.end + 42, bool(finite(r.value for r in rows)), title=title, caption=caption,
                  simulated=simulated, about=f"Dot plot of {len(rows)} values with intervals; {axis}")  # fmt: skip


def _room_for(names: Sequence[str], width: int) -> int:
    """Give where a plot may begin at the right of its names: they break where they are long."""
    return round(min(max([text_width(n) for n in names], default=0) + 30, width * 0.42))


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
    body += references(frame, x, y, lines)
    band, entries = len(series) <= _BANDS, []
    for i, (told, curve) in enumerate(zip(series, curves, strict=True)):
        thick, dash = 3.2 if told.emphasis else 2, dash_of(i) or ("6 4" if told.dashed else "")
        body += _curve(i, curve, x, y, band=band, shift=0 if band else (i - (len(series) - 1) / 2) * 3)
        body.append(path(f"ls{i % COLOURS}", ((x(p.x), y(p.y)) for p in curve), thick=thick, dash=dash))
        entries.append((told.name, sample(i, thick=thick, dash=dash)))
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


def _curve(i: int, curve: Sequence[Point], x: Scale, y: Scale, *, band: bool, shift: float) -> list[str]:
    """Draw the band or the bars of one curve, and its markers."""
    colour = f"s{i % COLOURS}"
    known = [p for p in curve if len(finite(p)) == 4]
    drawn = []
    if band and len(known) > 1:
        around = [(x(p.x), y(p.high)) for p in known] + [(x(p.x), y(p.low)) for p in reversed(known)]
        corners = " ".join(f"{a},{b}" for a, b in around)
        drawn.append(f'<polygon class="{colour}" fill-opacity="0.16" points="{corners}"/>')
    else:
        drawn += [whisker(f"l{colour}", x(p.x) + shift, y(p.low), y(p.high)) for p in known]
    return [*drawn, *(marker(i, x(p.x), y(p.y)) for p in curve)]


# --- calibration ----------------------------------------------------------------------------------------------------


def reliability_bins(confidences: Sequence[float], right: Sequence[bool], n_bins: int = 10) -> list[Bin]:
    """Sort rows into bins of confidence of equal width; empty bins are left out; 95% Wilson intervals.

    Args:
        confidences: probability of the label that was chosen, (N,).
        right: whether it was the true one, (N,).
    """
    found: dict[int, list[tuple[float, bool]]] = {}
    for sure, hit in zip(confidences, right, strict=True):
        found.setdefault(min(int(sure * n_bins), n_bins - 1), []).append((float(sure), bool(hit)))
    bins = []
    for _, rows in sorted(found.items()):
        n, hits = len(rows), sum(hit for _, hit in rows)
        bins.append(Bin(sum(sure for sure, _ in rows) / n, hits / n, n, *wilson(hits, n)))
    return bins


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Give the 95% interval of a share (Wilson, 1927)."""
    if not n:
        return 0.0, 1.0
    z = 1.959964
    share, part = hits / n, z * z / n
    middle, half = share + part / 2, z * math.sqrt(share * (1 - share) / n + part / (4 * n))
    return max(0.0, (middle - half) / (1 + part)), min(1.0, (middle + half) / (1 + part))


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


# --- matrices -------------------------------------------------------------------------------------------------------


def matrix_plot(
    values: Sequence[Sequence[float]], row_names: Sequence[str], column_names: Sequence[str], *, title: str,
    row_axis: str = "", column_axis: str = "", caption: str = "", simulated: str = "", digits: int = 2,
) -> str:  # fmt: skip
    """Draw a matrix with its numbers in the cells, each shaded by its share of its row: noise, confusion.

    Args:
        values: shares or counts, (rows, columns); whole numbers are written as such. Cells whose row and column have
            one name are outlined.
        row_axis: what rows are, e.g. "true label".
        column_axis: what columns are, e.g. "label given".
    """
    k = len(column_names)
    cell, size = next((c, s) for most, c, s in ((6, 64, 13.0), (12, 46, 11.5), (10**9, 36, 10.0)) if k <= most)
    tall = max(26, round(cell * 0.62))
    left = round(min(max([text_width(n) for n in (*row_names, row_axis)], default=0) + 28, 230))
    turned = any(text_width(n, 12) > (cell - 6) * 1.9 for n in column_names)
    longest = min(max([text_width(n, 12) for n in column_names], default=0), 150)
    top = (24 if column_axis else 6) + (round(longest * 0.7) + 16 if turned else 38)
    width = max(420, left + cell * k + (100 if turned else 24))
    body = [label(left, 10, column_axis, fill="muted", width=width - left - 16)] if column_axis else []
    body += [label(left - 12, top - 12, row_axis, anchor="end", fill="muted", width=left - 20)] if row_axis else []
    for j, name in enumerate(column_names):
        middle = left + cell * (j + 0.5)
        if turned:
            body.append(label(middle, top - 8, name, size=12, width=150, turn=-40))
        else:
            body.append(label(middle, top - 18, name, size=12, width=cell - 4, anchor="middle", most=2))
    for i, row in enumerate(values):
        y = top + tall * i
        body.append(label(left - 12, y + tall / 2, row_names[i], anchor="end", width=left - 24))
        total = sum(v for v in finite(row) if v > 0)
        for j, value in enumerate(row):
            level = round(value / total * (LEVELS - 1)) if total and math.isfinite(value) and value > 0 else 0
            edge = ('lmark" stroke-width="2' if row_names[i] == column_names[j] else "").rstrip()
            body.append(f'<rect class="c{level} {edge}" x="{left + cell * j + 1}" y="{y + 1}" width="{cell - 2}" '
                        f'height="{tall - 2}"/>')  # fmt: skip
            said = (
                f"{value:,}"
                if isinstance(value, int)
                else number(value, digits)
                if math.isnan(value)
                else f"{value:.{digits}f}"
            )
            fit = min(size, size * (cell - 6) / max(1.0, text_width(said, size)))
            body.append(label(left + cell * (j + 0.5), y + tall / 2, said, size=fit, anchor="middle", fill=f"t{level}"))
    about = f"Matrix of {len(values)} rows ({row_axis or 'row'}) by {k} columns ({column_axis or 'column'})"
    return framed(body, width, top + tall * len(values) + 6, bool(len(values) and k), title=title, caption=caption,
                  simulated=simulated, about=about)  # fmt: skip


# --- bars -----------------------------------------------------------------------------------------------------------


def bar_plot(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], *, title: str, axis: str, caption: str = "",
    simulated: str = "", digits: int = 0, width: int = 760,
) -> str:  # fmt: skip
    """Draw horizontal bars, stacked where there are several parts: cost, gates, what became of each class.

    Args:
        names: what each bar is, (N,).
        parts: values of each part, (N,) each, 0 or more, e.g. {"kept": ..., "relabelled": ..., "dropped": ...}.
        axis: what the length measures, with its unit.
        digits: decimals of the printed numbers.
    """
    totals = [sum(v for v in finite(values[i] for values in parts.values()) if v > 0) for i in range(len(names))]
    right, step = width - 30 - round(max([text_width(f"{t:,.{digits}f}") for t in totals], default=0)), 32
    frame = Frame(_room_for(names, width), right, 6, 6 + step * max(1, len(names)))
    high = max(totals, default=0.0) or 1.0
    x = scale(0, high, frame.left, frame.right)
    body = [x_axis(frame, x, 0, high, axis)]
    for i, name in enumerate(names):
        y, start = frame.top + step * i, 0.0
        body.append(label(frame.left - 12, y + step / 2, name, width=frame.left - 22, anchor="end", most=2))
        for p, value in enumerate(values[i] for values in parts.values()):
            if not (math.isfinite(value) and value > 0):
                continue
            a, z, part = x(start), x(start + value), f"p{p % COLOURS}"
            body.append(f'<rect class="{part} ledge" stroke-width="1" x="{a}" y="{y + 5}" width="{z - a:.1f}" '
                        f'height="{step - 10}"/>')  # fmt: skip
            said = f"{value:,.{digits}f}"
            if len(parts) > 1 and text_width(said, 11.5) + 8 <= z - a:
                body.append(label((a + z) / 2, y + step / 2, said, size=11.5, anchor="middle", fill=f"t{part}"))
            start += value
        known = finite(values[i] for values in parts.values())
        body.append(label(x(start) + 8, y + step / 2, f"{totals[i]:,.{digits}f}" if known else "–", bold=True))
    entries = [(name, swatch(p)) for p, name in enumerate(parts)] if len(parts) > 1 else []
    named, end = legend(frame, entries)
    about = f"Bars of {len(names)} values; {axis}" + (f"; parts: {', '.join(parts)}" if len(parts) > 1 else "")
    return framed([*body, *named], width, end, bool(names and parts), title=title, caption=caption, simulated=simulated,
                  about=about)  # fmt: skip


def histogram_plot(
    groups: Mapping[str, Sequence[float]], *, title: str, axis: str, bins: int = 20, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), limits: tuple[float, float] | None = None, width: int = 760,
    height: int = 260,
) -> str:  # fmt: skip
    """Draw how values are spread, as the share of each group's rows in bins of equal width.

    Args:
        groups: values of each group; several are drawn over each other.
        lines: values to compare with, e.g. a threshold (vertical).
        limits: ends of the x axis; from the values when None. Values beyond them count in the bins at the ends.
    """
    known = {name: finite(values) for name, values in groups.items()}
    lines = [told for told in lines if math.isfinite(told.value)]
    every = [v for values in known.values() for v in values] + [told.value for told in lines if told.vertical]
    low, high = limits or (min(every, default=0.0), max(every, default=1.0))
    high = high if high > low else low + 1.0
    shares = [_shares(values, low, high, bins) for values in known.values()]
    frame = Frame(62, width - 24, 26, height)
    most = max([s for row in shares for s in row], default=0.0) * 1.08 or 1.0
    x, y = scale(low, high, frame.left, frame.right), scale(0, most, frame.end, frame.top)
    body = [y_axis(frame, y, 0, most, "share of rows"), x_axis(frame, x, low, high, axis)]
    entries = []
    for i, (name, row) in enumerate(zip(groups, shares, strict=True)):
        edges = [low + (high - low) * b / bins for b in range(bins + 1)]
        steps = [(edges[b + side], share) for b, share in enumerate(row) for side in (0, 1)]
        places = [(x(a), y(s)) for a, s in [(low, 0.0), *steps, (high, 0.0)]]
        corners = " ".join(f"{a},{b}" for a, b in places)
        body.append(f'<polygon class="s{i % COLOURS}" fill-opacity="{0.28 if i == 0 else 0.1}" points="{corners}"/>')
        body.append(path(f"ls{i % COLOURS}", places, dash=dash_of(i)))
        entries.append((f"{name} ({len(known[name]):,} rows)", sample(i, dash=dash_of(i), with_marker=False)))
    body += references(frame, x, y, lines)
    named, end = legend(frame, entries)
    return framed([*body, *named], width, end, any(known.values()), title=title, caption=caption, simulated=simulated,
                  about=f"Histogram of {axis} for {', '.join(groups)}")  # fmt: skip


def _shares(values: Sequence[float], low: float, high: float, bins: int) -> list[float]:
    counts = [0] * bins
    for v in values:
        counts[max(0, min(bins - 1, int((v - low) / (high - low) * bins)))] += 1
    return [c / max(1, len(values)) for c in counts]
