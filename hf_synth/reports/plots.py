"""Plots as SVG: values with intervals, curves, reliability diagrams, matrices, bars, histograms.

Every plot draws its `title` and `caption`, and a stamp where `simulated` says why its figures are no clinical ones.
Values that are not finite are left out. The same arguments give the same bytes: one flat SVG for light, dark and print,
without scripts, fonts and references. Each is a `Picture`, which can be drawn again for a phone: then the names of rows
are above them. `width` is the most pixels that a picture is wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hf_synth.reports.canvas import (
    COLOURS,
    DASHES,
    NARROW_ROW,
    ROW,
    WIDE,
    Canvas,
    curve_ends,
    draw_empty,
    finite_values,
    format_length,
    room_for,
    sample,
    series_style,
    spread,
    swatch,
    text_width,
    with_style,
    wrapped,
)
from hf_synth.reports.flat_svg import LIGHT, ON_PARTS
from hf_synth.reports.page import clean, number

_NAN = float("nan")
_BANDS = 3  # with more curves than that, bands would hide each other
LEVELS = 10  # shades of a matrix cell
_MOST_NARROW = 6  # columns of a matrix that is drawn on a phone


# --- what is drawn --------------------------------------------------------------------------------------------------
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
        dashed: whether its line is dashed, e.g. for estimates that are shown with measurements.
        emphasis: whether it stands out.
    """

    name: str
    points: Sequence[tuple[float, ...]]
    dashed: bool = False
    emphasis: bool = False


class Bin(NamedTuple):
    """Rows of like confidence: their mean confidence, the share that is right, their number, and the interval."""

    confidence: float
    accuracy: float
    n: int
    low: float = _NAN
    high: float = _NAN


class Reference(NamedTuple):
    """A line to compare with: at a value of the y axis, or of the x axis where it is vertical."""

    name: str
    value: float
    vertical: bool = False


# --- the plots ------------------------------------------------------------------------------------------------------
@with_style
def interval_plot(
    rows: Sequence[Interval], *, title: str, axis: str, caption: str = "", simulated: str = "",
    reference: float | None = None, digits: int = 3, width: int = WIDE,
) -> str:  # fmt: skip
    """Draw values with intervals as a dot plot, values printed at the right.

    Args:
        axis: what the horizontal axis measures.
        reference: a value to compare with, drawn as a line; 0 is drawn where the axis crosses it.
        digits: decimals of the printed values.
    """
    words = (title, caption, simulated)
    if not finite_values(r.value for r in rows):
        return draw_empty(words, width)
    narrow = width < WIDE
    left, tall = (24, NARROW_ROW) if narrow else (room_for(r.name for r in rows), ROW)
    if any(len(wrapped(clean(r.name), (width - 8 if narrow else left) - 24, most=2)) > 1 for r in rows):
        tall += 12  # names of two lines must not touch
    right = 24 + max(text_width(number(float(r.value), digits), bold=True) for r in rows)
    canvas = Canvas(words, width=width, left=left, right=max(76, right), height=tall * len(rows))
    references = [] if reference is None else [reference]
    low, high = spread([v for r in rows for v in (r.value, r.low, r.high)] + references)
    canvas.mark_x(low, high, axis)
    canvas.compare(("", v, True) for v in {*references, *([0.0] if low < 0 < high else [])})
    for i, y in canvas.mark_rows([r.name for r in rows], [i for i, r in enumerate(rows) if r.emphasis]):
        row, colour = rows[i], LIGHT["mark" if rows[i].emphasis else "muted"]
        if len(finite_values((row.low, row.high))) == 2:
            canvas.axes.plot([row.low, row.high], [i, i], color=colour, linewidth=3, gid="interval")
        if math.isfinite(row.value):
            canvas.axes.plot(row.value, i, "o", color=colour, markersize=11, markeredgewidth=0, gid="dot")
        canvas.write(canvas.right + 12, y, number(float(row.value), digits), bold=row.emphasis)
    return canvas.svg(f"Dot plot of {len(rows)} values with intervals; {axis}")


@with_style
def curve_plot(
    series: Sequence[Series], *, title: str, x_axis: str, y_axis: str, log_x: bool = False, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), y_range: tuple[float, float] | None = None, width: int = WIDE,
) -> str:  # fmt: skip
    """Draw curves with their intervals: learning curves, ratio curves.

    Up to three curves have bands, more have bars, set a little apart. Points that a log axis cannot show are counted in
    the picture.

    Args:
        log_x: whether the x axis is logarithmic.
        lines: values to compare with, dashed and named in the legend.
        y_range: ends of the y axis; from the values when None.
    """
    known = [[Point(*p) for p in s.points if len(finite_values(p[:2])) == 2] for s in series]
    curves = [sorted(p for p in curve if p.x > 0 or not log_x) for curve in known]
    points = [p for curve in curves for p in curve]
    if n_hidden := sum(map(len, known)) - len(points):
        caption = f"{caption} {n_hidden} point(s) at x = 0 or below are not shown on this axis.".strip()
    words = (title, caption, simulated)
    if not points:
        return draw_empty(words, width)
    canvas = Canvas(words, width=width, height=314 if width == WIDE else 260, above=32)
    lines = [r for r in lines if math.isfinite(r.value) and not (r.vertical and log_x and r.value <= 0)]
    flat = [r.value for r in lines if not r.vertical]
    canvas.mark_y(*(y_range or spread([v for p in points for v in p[1:]] + flat)), y_axis)
    ends = curve_ends([p.x for p in points] + [r.value for r in lines if r.vertical], log_x)
    canvas.mark_x(*ends, x_axis, log=log_x)
    entries, band = [], len(series) <= _BANDS
    for i, (one, curve) in enumerate(zip(series, curves, strict=True)):
        dash = (((6, 5), (2, 4)) if one.dashed else ((), (9, 3, 2, 3)))[min(1, i // COLOURS)]
        look = series_style(i, thick=3.2 if one.emphasis else 2, dash=dash)
        canvas.curve(curve, look, 0 if band else (i - (len(series) - 1) / 2) * 2.5, band=band)
        entries.append((one.name, sample(look)))
    entries += canvas.compare(lines)
    return canvas.svg(f"Curves of {', '.join(s.name for s in series)}: {y_axis} by {x_axis}", entries=entries)


@with_style
def reliability_plot(
    bins: Mapping[str, Sequence[Bin]], *, title: str, caption: str = "", simulated: str = "", width: int = 560
) -> str:
    """Draw accuracy by confidence, a reliability diagram; a calibrated model lies on the diagonal.

    Args:
        bins: bins of each state, e.g. {"before (ECE 0.12)": ..., "after (ECE 0.04)": ...}; markers grow with the rows.
    """
    words = (title, caption, simulated)
    if not any(bins.values()):
        return draw_empty(words, width)
    canvas = Canvas(words, width=width, height=width - 86, above=32)
    canvas.mark_y(0, 1, "share of rows whose label is right")
    canvas.mark_x(0, 1, "probability of the chosen label")
    canvas.axes.plot([0, 1], [0, 1], color=LIGHT["edge"], linewidth=1.5, linestyle=(0, (5, 4)), gid="diagonal")
    most, entries = max(1, *(b.n for rows in bins.values() for b in rows)), []
    for i, (name, rows) in enumerate(bins.items()):
        known = [b for b in rows if len(finite_values(b[:2])) == 2]
        look, apart = series_style(i, thick=1.6, dash=DASHES[i % 6]), 2.5 * (2 * i - len(bins) + 1)
        canvas.curve([Point(b[0], b[1], *b[3:]) for b in known], look | {"marker": ""}, apart)
        for b in known:
            size = 6 + 8 * math.sqrt(b.n / most)
            canvas.curve([Point(b.confidence, b.accuracy)], look | {"markersize": size}, apart)
        entries.append((name, sample(look)))
    return canvas.svg(f"Reliability diagram of {', '.join(bins)}", entries=entries)


@with_style
def matrix_plot(
    values: Sequence[Sequence[float]], row_names: Sequence[str], column_names: Sequence[str], *, title: str,
    row_axis: str = "", column_axis: str = "", caption: str = "", simulated: str = "", digits: int = 2,
    width: int = WIDE,
) -> str:  # fmt: skip
    """Draw a matrix with its numbers in the cells, each shaded by its share of its row: noise, confusion.

    Args:
        values: shares or counts, (rows, columns); whole numbers are written as such. Cells whose row and column have
            one name are outlined.
        row_axis: what rows are, e.g. "true label".
        column_axis: what columns are, e.g. "label given".
    """
    k, words = len(column_names), (title, caption, simulated)
    if not (len(values) and k):
        return draw_empty(words, width)
    narrow = width < WIDE
    cell, size = next((c, s) for most, c, s in ((6, 64, 13.0), (12, 46, 11.5), (10**9, 36, 10.0)) if k <= most)
    left = round(min(max(text_width(clean(n)[:400]) for n in (*row_names, row_axis)) + 28, 120 if narrow else 230))
    cell = min(cell, (width - left - 16) // k) if narrow else cell
    tall = max(34 if narrow else 26, round(cell * 0.62))
    rotate = any("…" in line for n in column_names for line in wrapped(clean(n), cell - 4, 12, most=2))
    long = any("…" in line for n in row_names for line in wrapped(clean(n), left - 24, most=2))
    if narrow and (rotate or long or k > _MOST_NARROW):
        return _written_matrix(values, row_names, column_names, words, (row_axis, column_axis, digits), width)
    longest = min(max(text_width(clean(n)[:400], 12) for n in column_names), 150)
    above = (28 if column_axis else 6) + (round(longest * 0.7) + 16 if rotate else 38)
    if not narrow:
        width = max(420, left + cell * k + (100 if rotate else 24))
    height, right = tall * len(values), width - left - cell * k
    canvas = Canvas(words, width=width, left=left, right=right, height=height, above=above)
    canvas.axes.set(xlim=(-0.5, k - 0.5), xticks=[])
    canvas.write(left, canvas.top - above + 10, column_axis, colour="muted", width=width - left - 16)
    lines, beside = (2, canvas.top - 18) if narrow else (1, canvas.top - 12)
    canvas.write(left - 12, beside, row_axis, anchor="end", colour="muted", width=left - 20, most=lines)
    for j, name in enumerate(column_names):
        middle = left + cell * (j + 0.5)
        if rotate:
            canvas.write(middle, canvas.top - 8, name, size=12, width=150, turn=-40)
        else:
            canvas.write(middle, canvas.top - 18, name, size=12, width=cell - 4, anchor="middle", most=2)
    shades: dict[int, list[tuple[int, int]]] = {}
    for i, y in canvas.mark_rows(row_names, beside=True):
        total = sum(v for v in finite_values(values[i]) if v > 0)
        for j, value in enumerate(values[i]):
            share = value / total if total and math.isfinite(value) and value > 0 else 0
            shades.setdefault(round(share * (LEVELS - 1)), []).append((i, j))
            text = _cell(value, digits)
            fit = min(size, size * (cell - 6) / max(1.0, text_width(text, size)))
            canvas.write(left + cell * (j + 0.5), y, text, size=fit, anchor="middle")
    for level, cells in sorted(shades.items()):
        look = {"facecolor": LIGHT["cell"], "alpha": 0.06 + 0.94 * level / (LEVELS - 1), "linewidth": 0}
        canvas.cells(cells, 1 / cell, 1 / tall, gid=f"level{level}", **look)
    same = [(i, j) for i, row in enumerate(row_names) for j, name in enumerate(column_names) if row == name]
    canvas.cells(same, 1 / cell, 1 / tall, gid="same", facecolor="none", edgecolor=LIGHT["ink"], linewidth=2)
    about = f"Matrix of {len(values)} rows ({row_axis or 'row'}) by {k} columns ({column_axis or 'column'})"
    return canvas.svg(about, below=8)


def _cell(value: float, digits: int) -> str:
    return f"{value:,}" if isinstance(value, int) else "–" if math.isnan(value) else f"{value:.{digits}f}"


def _written_matrix(
    values: Sequence[Sequence[float]], row_names: Sequence[str], column_names: Sequence[str],
    words: tuple[str, str, str], how: tuple[str, str, int], width: int,
) -> str:  # fmt: skip
    """Write a matrix that is too wide to be drawn as text: the values of each row, largest first, without zeros.

    Args:
        how: what rows and columns are, and the decimals.
    """
    row_axis, column_axis, digits = how
    lines: list[tuple[str, bool]] = []
    for name, row in zip(row_names, values, strict=True):
        some = sorted((j for j, v in enumerate(row) if v != 0), key=lambda j: (not row[j] > 0, -row[j]))
        pairs = [f"{column_names[j]} {_cell(row[j], digits)}".replace(" ", "\u00a0") for j in some]
        lines.append((name, True))
        lines += [(line, False) for line in wrapped(clean(" · ".join(pairs) or "all 0"), width - 44, most=400)]
    head = f"{row_axis or 'row'}, and its values by {column_axis or 'column'}; zeros are left out"
    canvas = Canvas(words, width=width, height=18 * len(lines) + 4, above=44)
    canvas.axes.set_axis_off()
    canvas.write(16, canvas.top - 40, head, colour="muted", width=width - 32, most=2, down=True)
    for i, (line, bold) in enumerate(lines):
        canvas.write(16 if bold else 28, canvas.top + 18 * i + 9, line, bold=bold, width=width - 44)
    return canvas.svg(f"Matrix of {len(values)} rows ({row_axis or 'row'}), as text", below=4)


@with_style
def bar_plot(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], *, title: str, axis: str, caption: str = "",
    simulated: str = "", digits: int = 0, width: int = WIDE,
) -> str:  # fmt: skip
    """Draw horizontal bars, stacked where there are several parts: cost, gates, rows of each class.

    Args:
        names: what each bar is, (N,).
        parts: values of each part, (N,) each, 0 or more, e.g. {"kept": ..., "relabelled": ..., "dropped": ...}.
        axis: what the length measures, with its unit.
        digits: decimals of the printed numbers.
    """
    words = (title, caption, simulated)
    if not (names and parts):
        return draw_empty(words, width)
    known = [finite_values(values[i] for values in parts.values()) for i in range(len(names))]
    totals = [sum(v for v in values if v > 0) for values in known]
    right = 34 + max(text_width(format_length(total, digits), bold=True) for total in totals)
    narrow = width < WIDE
    left, tall = (24, NARROW_ROW) if narrow else (room_for(names), ROW)
    canvas = Canvas(words, width=width, left=left, right=right, height=tall * len(names))
    high = max(totals) if max(totals) > 1e-9 else 1.0
    canvas.mark_x(0, high, axis, whole=digits == 0)
    scale, edge = (canvas.right - canvas.left) / high, LIGHT["edge"]
    fills = [LIGHT[f"p{p % COLOURS}"] for p in range(len(parts))]
    for i, y in canvas.mark_rows(names):
        start = 0.0
        for p, values in enumerate(parts.values()):
            if not (math.isfinite(values[i]) and values[i] > 0):
                continue
            canvas.axes.barh(
                i, values[i], 22 / tall, start, facecolor=fills[p], edgecolor=edge, linewidth=1, gid="part"
            )
            text, middle = format_length(values[i], digits), canvas.left + (start + values[i] / 2) * scale
            if len(parts) > 1 and text_width(text, 11.5) + 8 <= values[i] * scale:
                canvas.write(middle, y, text, size=11.5, anchor="middle", colour=ON_PARTS[p % COLOURS])
            start += values[i]
        total = format_length(totals[i], digits) if known[i] else "–"
        canvas.write(canvas.left + start * scale + 8, y, total, bold=True)
    swatches = [swatch(fill) for fill in fills]
    about = f"Bars of {len(names)} values; {axis}" + (f"; parts: {', '.join(parts)}" if len(parts) > 1 else "")
    return canvas.svg(about, entries=list(zip(parts, swatches, strict=True)) if len(parts) > 1 else ())


@with_style
def histogram_plot(
    groups: Mapping[str, Sequence[float]], *, title: str, axis: str, bins: int = 20, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), limits: tuple[float, float] | None = None,
    width: int = WIDE,
) -> str:  # fmt: skip
    """Draw the distribution of values: the share of each group's rows in bins of equal width.

    Args:
        groups: values of each group; several are drawn over each other.
        lines: values to compare with, e.g. a threshold (vertical).
        limits: ends of the x axis; from the values when None. Values beyond them count in the bins at the ends.
    """
    words, known = (title, caption, simulated), {name: finite_values(values) for name, values in groups.items()}
    if not any(known.values()):
        return draw_empty(words, width)
    lines = [r for r in lines if math.isfinite(r.value)]
    every = [v for values in known.values() for v in values] + [r.value for r in lines if r.vertical]
    low, high = limits or (min(every), max(every))
    if not high > low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(np.clip(v, low, high), edges)[0] / max(1, len(v)) for v in known.values()]
    canvas, entries = Canvas(words, width=width, height=234 if width == WIDE else 200, above=32), []
    canvas.mark_y(0, max(map(max, shares)) * 1.08, "share of rows")
    canvas.mark_x(low, high, axis)
    for i, (name, share) in enumerate(zip(groups, shares, strict=True)):
        look = {k: v for k, v in series_style(i, dash=DASHES[i % 6]).items() if not k.startswith("marker")}
        canvas.axes.stairs(share, edges, fill=True, color=look["color"], alpha=0.1 if i else 0.28, linewidth=0)
        canvas.axes.stairs(share, edges, gid="stairs", **look)
        entries.append((f"{name} ({len(known[name]):,} rows)", sample(look)))
    entries += canvas.compare(lines)
    return canvas.svg(f"Histogram of {axis} for {', '.join(groups)}", entries=entries)
