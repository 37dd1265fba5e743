"""Tables and plots as text: Markdown and SVG, pure, no JavaScript, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LIGHT = {"ink": "#1b1f24", "grid": "#d7dbe0", "dot": "#56606b", "mark": "#0b6e4f", "paper": "#fff"}
_DARK = {"ink": "#e8eaed", "grid": "#3a4149", "dot": "#a8b3bf", "mark": "#4cc38a", "paper": "#15181c"}


def _rules(colours: dict[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
    lines = f".grid{{stroke:{colours['grid']}}}.bar{{stroke:{colours['dot']}}}.markbar{{stroke:{colours['mark']}}}"
    return fills + lines


_STYLE = f"{_rules(_LIGHT)}@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Give a Markdown table with columns padded, so that it reads well in a terminal too; floats with 3 decimals."""
    cells = [[str(h) for h in header], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def interval_plot(rows: Sequence[Interval], *, title: str, axis: str, caption: str = "", width: int = 760) -> str:
    """Draw values with intervals as a dot plot, values printed at the right; readable in light, dark and in print.

    Args:
        axis: what the horizontal axis measures.
        caption: stands in the picture itself, so that it travels with it.
    """
    left, right, top, step = 200, 90, 56, 30
    height = top + step * len(rows) + 44 + (20 if caption else 0)
    low, high = min(r.low for r in rows), max(r.high for r in rows)
    pad = max(0.02, (high - low) * 0.08)
    low, high = max(0.0, low - pad), min(1.0, high + pad)

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (width - left - right), 1)

    end = top + step * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}" font-family="system-ui, sans-serif" font-size="13">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="ink" x="16" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{top - 8}" y2="{end}"/>')
        parts.append(f'<text class="ink" x="{x(tick)}" y="{end + 16}" text-anchor="middle">{tick:g}</text>')
    for i, row in enumerate(rows):
        y = top + step * i + step // 2
        line, dot = ("markbar", "mark") if row.emphasis else ("bar", "dot")
        weight = ' font-weight="600"' if row.emphasis else ""
        parts += [
            f'<text class="ink" x="{left - 12}" y="{y + 4}" text-anchor="end"{weight}>{escape(row.name)}</text>',
            f'<line class="{line}" stroke-width="3" x1="{x(row.low)}" x2="{x(row.high)}" y1="{y}" y2="{y}"/>',
            f'<circle class="{dot}" cx="{x(row.value)}" cy="{y}" r="5.5"/>',
            f'<text class="ink" x="{width - right + 12}" y="{y + 4}"{weight}>{row.value:.3f}</text>',
        ]
    parts.append(f'<text class="ink" x="{(left + width - right) / 2}" y="{end + 34}" text-anchor="middle">'
                 f"{escape(axis)}</text>")  # fmt: skip
    if caption:
        parts.append(f'<text class="ink" x="16" y="{height - 10}" font-size="11.5">{escape(caption)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _ticks(low: float, high: float) -> list[float]:
    """Give round positions between two ends, about five of them."""
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 7), 0.25)
    first = int(low / step) + 1
    return [round(i * step, 4) for i in range(first, int(high / step) + 1)]
