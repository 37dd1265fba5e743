"""Plots of parts of a whole: matrices, stacked bars, histograms. `plots.py` hands them on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hf_synth.reports.axes import (
    Frame,
    Reference,
    dash_of,
    framed,
    legend,
    path,
    references,
    sample,
    swatch,
    x_axis,
    y_axis,
)
from hf_synth.reports.drawing import COLOURS, LEVELS, finite, label, number, room_for, scale, text_width, wrapped

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
    turned = any("…" in line for n in column_names for line in wrapped(n, cell - 4, 12, most=2))
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
        body.append(
            label(left - 12, y + tall / 2, row_names[i], anchor="end", width=left - 24, most=2 if tall > 32 else 1)
        )
        total = sum(v for v in finite(row) if v > 0)
        for j, value in enumerate(row):
            level = round(value / total * (LEVELS - 1)) if total and math.isfinite(value) and value > 0 else 0
            edge = ('link" stroke-width="2' if row_names[i] == column_names[j] else "").rstrip()
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
    frame = Frame(room_for(names, width), right, 6, 6 + step * max(1, len(names)))
    high = max(totals, default=0.0) or 1.0
    x = scale(0, high, frame.left, frame.right)
    body = [x_axis(frame, x, 0, high, axis, whole=digits == 0)]
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
    if not high > low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
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
