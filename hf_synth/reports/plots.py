"""Plots as SVG by matplotlib: values with intervals, curves, reliability diagrams, matrices, bars, histograms.

Every plot draws its `title`, `caption` and `simulated`, the reason why its figures are no clinical ones. Values that
are not finite are left out. The same arguments give the same bytes: one flat SVG for light, dark and print, without
scripts, fonts and references. matplotlib draws the shapes and the numbers of the axes; texts are added as they are. Its
settings are ours while a picture is drawn, in other threads too.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from html import escape
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from hf_synth.reports.page import clean, number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

P = ParamSpec("P")
_SPACE, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NAN = float("nan")
_FOREIGN = re.compile("[^ -~\u00a0-\u024f\u0400-\u045f\u2010-\u2026]")

# Light and dark. Series (s) and parts of bars (p) differ without red, green or blue cones too, and by more than colour.
PALETTE = {
    "ink": ("#1b1f24", "#e8eaed"), "muted": ("#515c68", "#a8b3bf"), "grid": ("#d7dbe0", "#3a4149"),
    "edge": ("#6b7682", "#8b96a2"), "paper": ("#ffffff", "#15181c"), "soft": ("#fff1cc", "#4a3a0c"),
    "mark": ("#0b6e4f", "#4cc38a"), "cell": ("#4f94d4", "#2a66a5"), "s0": ("#0a4a86", "#4a93f0"),
    "s1": ("#9e2f0c", "#d9582e"), "s2": ("#2a9d74", "#63e0a8"), "s3": ("#c653c0", "#bb6fb5"),
    "s4": ("#9c8110", "#f2d65c"), "s5": ("#5d6a78", "#c9d3de"), "p0": ("#0b5c99", "#4a9fe0"),
    "p1": ("#f0a04b", "#9c5410"), "p2": ("#c9d0d8", "#56606b"), "p3": ("#5b2a6e", "#e0b4ee"),
    "p4": ("#6fbf9c", "#276b4f"), "p5": ("#8c6d1f", "#f0dc96"),
}  # fmt: skip
ON_PARTS = ("paper", "ink", "ink", "paper", "ink", "paper")  # of the numbers in p0 to p5
LEVELS = 10  # shades of a matrix cell
_LIGHT = {name: light for name, (light, _) in PALETTE.items()}
_NAMES = {light: name for name, light in _LIGHT.items()}
_COLOURS = len(ON_PARTS)
_MARKERS = "osD^vP"
_DASHES = ((), (7, 4), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2, 1, 2, 1, 2))
_KEPT = re.compile("fill|stroke|opacity|(fill|stroke)-opacity|stroke-width|stroke-dasharray|text-anchor")
_BANDS = 3  # with more curves than that, bands would hide each other

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "hf_synth", "text.parse_math": False, "axes.unicode_minus": False,
    "font.family": "DejaVu Sans", "font.size": 13, "figure.dpi": 72, "lines.scale_dashes": False, "axes.grid": True,
    "axes.axisbelow": True, "axes.facecolor": "none", "grid.color": _LIGHT["grid"], "grid.linewidth": 1,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{axis}tick.labelcolor": _LIGHT["muted"] for axis in "xy"}, "xtick.major.size": 0, "ytick.major.size": 0,
    "xtick.major.pad": 6, "ytick.major.pad": 8,
}  # fmt: skip
_LOCK = Lock()  # matplotlib's settings are global


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
        dashed: whether its line is dashed, e.g. for estimates beside measurements.
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


# --- text -----------------------------------------------------------------------------------------------------------
def text_width(text: str, size: float = 13, *, bold: bool = False) -> float:
    """Return the width of a text in pixels, in DejaVu Sans, which is a wide font; letters it lacks count as W."""
    return size * sum(_letter_width("W" if _FOREIGN.match(c) else c, bold) for c in text)


@cache
def _letter_width(letter: str, bold: bool) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=100, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0]) / 100


def wrapped(text: str, width: float, size: float = 13, *, most: int = 1, bold: bool = False) -> list[str]:
    """Break a text after spaces _ - / into lines of a width, at most so many; what is longer ends in an ellipsis."""

    def wide(line: str) -> float:
        return text_width(line, size, bold=bold)

    def cut(line: str) -> str:
        letters = bisect_right(range(1, len(line)), width, key=lambda n: wide(line[:n] + "…"))
        return line if wide(line) <= width else line[:letters].rstrip() + "…"

    lines: list[str] = []
    for word in re.findall(r"[^\s_/-]*[_/-]+|[^\s_/-]+|\s", " ".join(text.split())):
        if lines and (most == 1 or wide(lines[-1] + word.rstrip()) <= width):
            lines[-1] += word
        elif word != " ":
            lines.append(word)
    if len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [cut(line.strip()) for line in lines]


def _finite(values: Iterable[float]) -> list[float]:
    return [v for v in values if math.isfinite(v)]


def _tick_text(value: float, _: object = None) -> str:
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _amount(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if value < 1e12 else f"{value:.3g}"


# --- the canvas -----------------------------------------------------------------------------------------------------
class _Canvas:
    """A figure in pixels from its upper left corner: title, reason why it is simulated, axes, legend, caption."""

    def __init__(
        self, words: tuple[str, str, str], *, width: int = 760, left: float = 62, right: float = 24, height: float,
        above: float = 6,
    ) -> None:  # fmt: skip
        from matplotlib.figure import Figure

        self.title, self.caption, self.simulated = map(clean, words)
        self.width, self.left, self.right, self.texts = width, left, width - right, list[Element]()
        y = self.write(16, 10, self.title, size=16, bold=True, width=width - 32, most=3, down=True) + 4
        if self.simulated:
            at, reason = len(self.texts), f"Simulated: {self.simulated}"
            end = self.write(28, y + 5, reason, size=12.5, bold=True, width=width - 56, most=4, down=True) + 5
            ground = {"x": "16", "y": _short(y), "width": str(width - 32), "height": _short(end - y), "rx": "3"}
            self.texts.insert(at, Element("rect", ground | _fill("soft")))
            y = end + 6
        self.top, self.end = y + above, y + above + height
        self.figure = Figure((width / 72, 1), facecolor=_LIGHT["paper"])
        self.axes = self.figure.add_axes((left / width, 0, (self.right - left) / width, 1))

    def write(
        self, x: float, y: float, text: str, *, size: float = 13, width: float = 1e9, most: int = 1, bold: bool = False,
        colour: str = "ink", anchor: str = "", turn: int = 0, down: bool = False,
    ) -> float:  # fmt: skip
        """Write a text of at most so many lines, centred on y, or from y on where `down`; return its lower end."""
        lines, step = wrapped(clean(text), width, size, most=most, bold=bold), size * 1.25
        top = y if down else y - step * len(lines) / 2
        for i, line in enumerate(lines):
            base = _short(top + step * (i + 0.5) + size * 0.35)
            look = {"font-size": f"{size:g}" if size != 13 else "", "font-weight": "600" if bold else "",
                    "text-anchor": anchor, "transform": f"rotate({turn} {x:g} {base})" if turn else ""}  # fmt: skip
            element = Element("text", {"x": _short(x), "y": base} | {k: v for k, v in look.items() if v})
            element.text = line
            element.attrib |= _fill(colour) if colour != "ink" else {}
            if line.endswith("…") and "…" not in text:
                SubElement(element, "title").text = clean(text)
            self.texts.append(element)
        return top + step * len(lines)

    def mark_x(self, low: float, high: float, name: str, *, log: bool = False, whole: bool = False) -> None:
        """Set the ends of the x axis, mark as many round numbers as have room, and write its name beneath."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        most, decades = max(1, min(7, int((self.right - self.left) / 80))), math.log10(high / low) if log else 0
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        locator = LogLocator(subs=steps) if log else MaxNLocator(most, steps=(1, 2, 5, 10), integer=whole)
        self.axes.set(xscale="log" if log else "linear", xlim=(low, high))
        self.axes.xaxis.set(major_locator=locator, major_formatter=_tick_text)
        self.axes.minorticks_off()
        middle = (self.left + self.right) / 2
        self.write(middle, self.end + 34, name, anchor="middle", width=min(middle, self.width - middle) * 2 - 8)

    def mark_y(self, low: float, high: float, name: str) -> None:
        """Set the ends of the y axis, mark round numbers, and write its name above."""
        from matplotlib.ticker import MaxNLocator

        self.axes.set_ylim(low, high)
        self.axes.yaxis.set(major_locator=MaxNLocator(6, steps=(1, 2, 5, 10)), major_formatter=_tick_text)
        self.write(16, self.top - 19, name, width=self.width - 32)

    def mark_rows(self, names: Sequence[str], bold: Sequence[int] = ()) -> Iterator[tuple[int, float]]:
        """Name the rows at the left; yield the number and the middle of each."""
        self.axes.set(ylim=(len(names) - 0.5, -0.5), yticks=[])
        for i, name in enumerate(names):
            y = self.top + (self.end - self.top) * (i + 0.5) / len(names)
            self.write(self.left - 12, y, name, width=self.left - 24, most=2, bold=i in bold, anchor="end")
            yield i, y

    def compare(self, lines: Iterable[Reference]) -> list[tuple[str, Artist]]:
        """Draw lines to compare with; return their part of the legend."""
        entries: list[tuple[str, Artist]] = []
        for i, line in enumerate(lines):
            look: dict[str, Any] = {"color": _LIGHT["edge"], "linewidth": 1.5, "linestyle": (0, _DASHES[1 + i % 5])}
            (self.axes.axvline if line.vertical else self.axes.axhline)(line.value, gid="reference", **look)
            entries.append((line.name, _sample(look)))
        return entries

    def curve(self, points: Sequence[Point], look: Mapping[str, Any], apart: float, *, band: bool = False) -> None:
        """Draw a curve some pixels beside its place, with a band or with bars."""
        from matplotlib.transforms import Affine2D

        place = self.axes.transData + Affine2D().translate(apart, 0)
        finite = [p for p in points if len(_finite(p)) == 4]
        x, low, high = ([p[i] for p in finite] for i in (0, 2, 3))
        if band and len(finite) > 1:
            fill = {"facecolor": look["color"], "alpha": 0.16, "linewidth": 0}
            self.axes.fill_between(x, low, high, transform=place, gid="band", **fill)
        else:
            bar = {"color": look["color"], "linewidth": 1.6, "marker": "_", "markersize": 7, "markeredgewidth": 1.6}
            self.axes.plot([x, x], [low, high], transform=place, gid="bar", **bar)
        self.axes.plot([p.x for p in points], [p.y for p in points], transform=place, gid="curve", **look)

    def svg(self, about: str, *, below: float = 48, entries: Sequence[tuple[str, Artist]] = ()) -> str:
        """Add legend and caption; return the picture with one sentence for those who cannot see it."""
        from matplotlib.transforms import Affine2D

        room = max((text_width(clean(name), 12.5) for name, _ in entries), default=0) + 64
        columns = max(1, min(len(entries), int((self.right - self.left + 20) / room)))
        end = y = self.end + below
        end += 22 * math.ceil(len(entries) / columns) + 4 if entries else 0
        if self.caption:
            end = self.write(16, end, self.caption, size=11.5, colour="muted", width=self.width - 32, most=8, down=True)
        height = math.ceil(end + 8)
        for i, (name, artist) in enumerate(entries):
            x, at = self.left + room * (i % columns), y + 10 + 22 * (i // columns)
            self.write(x + 42, at, name, size=12.5, width=self.right - x - 42)
            artist.set_transform(Affine2D().translate(x, height - at))
            self.figure.add_artist(artist)
        x, y, wide, tall = self.left, height - self.end, self.right - self.left, self.end - self.top
        self.figure.set_size_inches(self.width / 72, height / 72)
        self.axes.set_position((x / self.width, y / height, wide / self.width, tall / height))
        desc = ". ".join(filter(None, [self.simulated and f"Simulated: {self.simulated}", clean(about), self.caption]))
        return _svg(self.figure, self.texts, self.width, height, self.title, desc)


def _with_style(plot: Callable[P, str]) -> Callable[P, str]:
    """Draw with our settings instead of the user's, one picture at a time."""

    @wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> str:
        from matplotlib import style

        with _LOCK, style.context(["default", _STYLE]):
            return plot(*args, **kwargs)

    return draw


def _nothing(words: tuple[str, str, str]) -> str:
    canvas = _Canvas(words, height=36)
    canvas.axes.set_axis_off()
    canvas.write(16, canvas.top + 14, "nothing to show: no value was measured", colour="muted")
    return canvas.svg("No value", below=0)


# --- from matplotlib's SVG to ours ----------------------------------------------------------------------------------
def _short(value: float | str) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _fill(name: str) -> dict[str, str]:
    """Return a colour as an attribute for the light and as a class for the dark."""
    return {"fill": _LIGHT[name], "class": f"fill-{name}"}


def _svg(figure: Figure, texts: Sequence[Element], width: int, height: int, title: str, desc: str) -> str:
    """Return a figure and texts as one SVG; its ids come from its content."""
    for artist in figure.findobj():
        artist.set_clip_on(False)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    markers = {f"#{e.get('id')}": e for e in root.iter(f"{_SPACE}path") if e.get("id")}
    shapes = [*_shapes(root, markers), *texts]
    used = sorted({name for shape in shapes for name in shape.get("class", "").split()})
    rules = ((name, *name.partition("-")[::2]) for name in used)
    dark = f".plot{{fill:{PALETTE['ink'][1]}}}"
    dark += "".join(f".plot .{name}{{{kind}:{PALETTE[n][1]}}}" for name, kind, n in rules if n in PALETTE)
    body = "\n".join(ElementTree.tostring(shape, encoding="unicode") for shape in shapes)
    key = hashlib.sha256((title + desc + body).encode()).hexdigest()[:12]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-labelledby="title-{key} desc-{key}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{_LIGHT["ink"]}">\n'
        f'<title id="title-{key}">{escape(title)}</title>\n<desc id="desc-{key}">{escape(desc)}</desc>\n'
        f"<style>@media screen and (prefers-color-scheme:dark){{{dark}}}</style>\n{body}\n</svg>\n"
    )


def _shapes(group: Element, markers: Mapping[str, Element], kind: str = "") -> Iterator[Element]:
    """Yield what matplotlib drew without groups, styles, ids and references; an artist's gid becomes a class."""
    for child in group:
        name, tag = child.get("id", ""), child.tag.removeprefix(_SPACE)
        if tag == "g":
            yield from _shapes(child, markers, kind if re.search(r"_\d+$|^$", name) else name)
        elif tag in ("path", "use", "text"):
            marker = markers.get(child.get(_LINK, ""), child)
            rules = f"{marker.get('style')};{child.get('style')}".split(";")
            look = {k.strip(): v.strip() for k, _, v in (rule.partition(":") for rule in rules)}
            shape = Element("text" if tag == "text" else "path")
            shape.text = child.text
            if tag == "use":
                shape.set("transform", f"translate({_short(child.get('x', 0))} {_short(child.get('y', 0))})")
            places = {"x": child.get("x"), "y": child.get("y")} if tag == "text" else {"d": marker.get("d")}
            for key, value in places.items():
                shape.set(key, " ".join(re.sub(r"-?\d+\.\d+", lambda n: _short(n[0]), str(value)).split()))
            shape.attrib |= {k: v for k, v in look.items() if _KEPT.fullmatch(k)}
            classes = [f"{k}-{_NAMES[v]}" for k, v in look.items() if v in _NAMES]
            shape.set("class", " ".join(filter(None, [kind, *classes])))
            if look.get("fill") != "none" or "stroke" in look:
                yield shape


# --- axes -----------------------------------------------------------------------------------------------------------
def _room_for(names: Iterable[str]) -> float:
    """Return the pixels at the left for the names of rows: they break where they are long."""
    return min(max(text_width(clean(n)[:400], bold=True) for n in names) + 30, 320)


def _spread(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis: the values with some room, inside 0..1 where all are shares."""
    finite = _finite(values)
    low, high = min(finite), max(finite)
    share = low >= 0 and high <= 1
    room = max((high - low) * 0.08 or abs(high) * 0.1, 0.02 if share or high == low else 0)
    return low - room if low < 0 else max(0.0, low - room), min(1.0, high + room) if share else high + room


def _ends(xs: Sequence[float], log: bool) -> tuple[float, float]:
    """Return the ends of the x axis of curves, with some room."""
    low, high = min(xs), max(xs)
    if log:
        return (low * 0.9, high * 1.1) if high > low else (low / 2, high * 2)
    room = (high - low) * 0.03 or abs(high) * 0.5 or 1.0
    return low - room, high + room


def _look(i: int, *, thick: float = 2, dash: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the colour, the dashes and the marker of a series."""
    line = {"color": _LIGHT[f"s{i % _COLOURS}"], "linewidth": thick, "linestyle": (0, dash) if dash else "-"}
    return line | {"marker": _MARKERS[i % 6], "markersize": 9, "markeredgewidth": 0}


def _sample(look: Mapping[str, Any]) -> Artist:
    """Return the piece of a line in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([0, 17, 34], [0, 0, 0], markevery=[1], **look)


# --- the plots ------------------------------------------------------------------------------------------------------
@_with_style
def interval_plot(
    rows: Sequence[Interval], *, title: str, axis: str, caption: str = "", simulated: str = "",
    reference: float | None = None, digits: int = 3,
) -> str:  # fmt: skip
    """Draw values with intervals as a dot plot, values printed at the right.

    Args:
        axis: what the horizontal axis measures.
        reference: a value to compare with, drawn as a line; 0 is drawn where the axis crosses it.
        digits: decimals of the printed values.
    """
    words = (title, caption, simulated)
    if not _finite(r.value for r in rows):
        return _nothing(words)
    canvas = _Canvas(words, left=_room_for(r.name for r in rows), right=76, height=34 * len(rows))
    references = [] if reference is None else [reference]
    low, high = _spread([v for r in rows for v in (r.value, r.low, r.high)] + references)
    canvas.mark_x(low, high, axis)
    canvas.compare(Reference("", v, vertical=True) for v in {*references, *([0.0] if low < 0 < high else [])})
    for i, y in canvas.mark_rows([r.name for r in rows], [i for i, r in enumerate(rows) if r.emphasis]):
        row, colour = rows[i], _LIGHT["mark" if rows[i].emphasis else "muted"]
        if len(_finite((row.low, row.high))) == 2:
            canvas.axes.plot([row.low, row.high], [i, i], color=colour, linewidth=3, gid="interval")
        if math.isfinite(row.value):
            canvas.axes.plot(row.value, i, "o", color=colour, markersize=11, markeredgewidth=0, gid="dot")
        canvas.write(canvas.right + 12, y, number(float(row.value), digits), bold=row.emphasis)
    return canvas.svg(f"Dot plot of {len(rows)} values with intervals; {axis}")


@_with_style
def curve_plot(
    series: Sequence[Series], *, title: str, x_axis: str, y_axis: str, log_x: bool = False, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), y_range: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Draw curves with their intervals: learning curves, ratio curves.

    Up to three curves have bands, more have bars, set a little apart. Points that a log axis cannot show are counted in
    the picture.

    Args:
        log_x: whether the x axis is logarithmic.
        lines: values to compare with, dashed and named in the legend.
        y_range: ends of the y axis; from the values when None.
    """
    finite = [[Point(*p) for p in s.points if len(_finite(p[:2])) == 2] for s in series]
    curves = [sorted(p for p in curve if p.x > 0 or not log_x) for curve in finite]
    points = [p for curve in curves for p in curve]
    if n_hidden := sum(map(len, finite)) - len(points):
        caption = f"{caption} {n_hidden} point(s) at x = 0 or below are not shown on this axis.".strip()
    words = (title, caption, simulated)
    if not points:
        return _nothing(words)
    canvas = _Canvas(words, height=314, above=32)
    lines = [r for r in lines if math.isfinite(r.value) and not (r.vertical and log_x and r.value <= 0)]
    flat = [r.value for r in lines if not r.vertical]
    canvas.mark_y(*(y_range or _spread([v for p in points for v in p[1:]] + flat)), y_axis)
    ends = _ends([p.x for p in points] + [r.value for r in lines if r.vertical], log_x)
    canvas.mark_x(*ends, x_axis, log=log_x)
    entries, band = [], len(series) <= _BANDS
    for i, (one, curve) in enumerate(zip(series, curves, strict=True)):
        dash = (((6, 5), (2, 4)) if one.dashed else ((), (9, 3, 2, 3)))[min(1, i // _COLOURS)]
        look = _look(i, thick=3.2 if one.emphasis else 2, dash=dash)
        canvas.curve(curve, look, 0 if band else (i - (len(series) - 1) / 2) * 2.5, band=band)
        entries.append((one.name, _sample(look)))
    entries += canvas.compare(lines)
    return canvas.svg(f"Curves of {', '.join(s.name for s in series)}: {y_axis} by {x_axis}", entries=entries)


@_with_style
def reliability_plot(
    bins: Mapping[str, Sequence[Bin]], *, title: str, caption: str = "", simulated: str = "", width: int = 560
) -> str:
    """Draw accuracy by confidence, a reliability diagram; a calibrated model lies on the diagonal.

    Args:
        bins: bins of each state, e.g. {"before (ECE 0.12)": ..., "after (ECE 0.04)": ...}; markers grow with the rows.
    """
    words = (title, caption, simulated)
    if not any(bins.values()):
        return _nothing(words)
    canvas = _Canvas(words, width=width, height=width - 86, above=32)
    canvas.mark_y(0, 1, "share of rows whose label is right")
    canvas.mark_x(0, 1, "probability of the chosen label")
    canvas.axes.plot([0, 1], [0, 1], color=_LIGHT["edge"], linewidth=1.5, linestyle=(0, (5, 4)), gid="diagonal")
    most, entries = max(1, *(b.n for rows in bins.values() for b in rows)), []
    for i, (name, rows) in enumerate(bins.items()):
        finite = [b for b in rows if len(_finite(b[:2])) == 2]
        look, apart = _look(i, thick=1.6, dash=_DASHES[i % 6]), 2.5 * (2 * i - len(bins) + 1)
        canvas.curve([Point(b[0], b[1], *b[3:]) for b in finite], look | {"marker": ""}, apart)
        for b in finite:
            size = 6 + 8 * math.sqrt(b.n / most)
            canvas.curve([Point(b.confidence, b.accuracy)], look | {"markersize": size}, apart)
        entries.append((name, _sample(look)))
    return canvas.svg(f"Reliability diagram of {', '.join(bins)}", entries=entries)


@_with_style
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
    k, words = len(column_names), (title, caption, simulated)
    if not (len(values) and k):
        return _nothing(words)
    cell, size = next((c, s) for most, c, s in ((6, 64, 13.0), (12, 46, 11.5), (10**9, 36, 10.0)) if k <= most)
    tall = max(26, round(cell * 0.62))
    left = round(min(max(text_width(clean(n)[:400]) for n in (*row_names, row_axis)) + 28, 230))
    rotate = any("…" in line for n in column_names for line in wrapped(clean(n), cell - 4, 12, most=2))
    longest = min(max(text_width(clean(n)[:400], 12) for n in column_names), 150)
    above = (28 if column_axis else 6) + (round(longest * 0.7) + 16 if rotate else 38)
    width = max(420, left + cell * k + (100 if rotate else 24))
    height, right = tall * len(values), width - left - cell * k
    canvas = _Canvas(words, width=width, left=left, right=right, height=height, above=above)
    canvas.axes.set(xlim=(-0.5, k - 0.5), xticks=[])
    canvas.write(left, canvas.top - above + 10, column_axis, colour="muted", width=width - left - 16)
    canvas.write(left - 12, canvas.top - 12, row_axis, anchor="end", colour="muted", width=left - 20)
    for j, name in enumerate(column_names):
        middle = left + cell * (j + 0.5)
        if rotate:
            canvas.write(middle, canvas.top - 8, name, size=12, width=150, turn=-40)
        else:
            canvas.write(middle, canvas.top - 18, name, size=12, width=cell - 4, anchor="middle", most=2)
    shades: dict[int, list[tuple[int, int]]] = {}
    for i, y in canvas.mark_rows(row_names):
        total = sum(v for v in _finite(values[i]) if v > 0)
        for j, value in enumerate(values[i]):
            share = value / total if total and math.isfinite(value) and value > 0 else 0
            shades.setdefault(round(share * (LEVELS - 1)), []).append((i, j))
            text = f"{value:,}" if isinstance(value, int) else "–" if math.isnan(value) else f"{value:.{digits}f}"
            fit = min(size, size * (cell - 6) / max(1.0, text_width(text, size)))
            canvas.write(left + cell * (j + 0.5), y, text, size=fit, anchor="middle")
    for level, cells in sorted(shades.items()):
        look = {"facecolor": _LIGHT["cell"], "alpha": 0.06 + 0.94 * level / (LEVELS - 1), "linewidth": 0}
        _draw_cells(canvas, cells, 1 / cell, 1 / tall, gid=f"level{level}", **look)
    same = [(i, j) for i, row in enumerate(row_names) for j, name in enumerate(column_names) if row == name]
    _draw_cells(canvas, same, 1 / cell, 1 / tall, gid="same", facecolor="none", edgecolor=_LIGHT["ink"], linewidth=2)
    about = f"Matrix of {len(values)} rows ({row_axis or 'row'}) by {k} columns ({column_axis or 'column'})"
    return canvas.svg(about, below=8)


def _draw_cells(canvas: _Canvas, cells: Sequence[tuple[int, int]], dx: float, dy: float, **look: Any) -> None:
    """Draw cells of a matrix as one shape, with a gap around each."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * (0.5 - dx, 0.5 - dy)
    paths = [Path(corners + np.array([j, i]), closed=True) for i, j in cells]
    canvas.axes.add_patch(PathPatch(Path.make_compound_path(*paths), **look))


@_with_style
def bar_plot(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], *, title: str, axis: str, caption: str = "",
    simulated: str = "", digits: int = 0,
) -> str:  # fmt: skip
    """Draw horizontal bars, stacked where there are several parts: cost, gates, rows of each class.

    Args:
        names: what each bar is, (N,).
        parts: values of each part, (N,) each, 0 or more, e.g. {"kept": ..., "relabelled": ..., "dropped": ...}.
        axis: what the length measures, with its unit.
        digits: decimals of the printed numbers.
    """
    from matplotlib.patches import Rectangle

    words = (title, caption, simulated)
    if not (names and parts):
        return _nothing(words)
    finite = [_finite(values[i] for values in parts.values()) for i in range(len(names))]
    totals = [sum(v for v in values if v > 0) for values in finite]
    right = 34 + max(text_width(_amount(total, digits), bold=True) for total in totals)
    canvas = _Canvas(words, left=_room_for(names), right=right, height=32 * len(names))
    high = max(totals) if max(totals) > 1e-9 else 1.0
    canvas.mark_x(0, high, axis, whole=digits == 0)
    scale, edge = (canvas.right - canvas.left) / high, _LIGHT["edge"]
    fills = [_LIGHT[f"p{p % _COLOURS}"] for p in range(len(parts))]
    for i, y in canvas.mark_rows(names):
        start = 0.0
        for p, values in enumerate(parts.values()):
            if not (math.isfinite(values[i]) and values[i] > 0):
                continue
            canvas.axes.barh(i, values[i], 22 / 32, start, facecolor=fills[p], edgecolor=edge, linewidth=1, gid="part")
            text, middle = _amount(values[i], digits), canvas.left + (start + values[i] / 2) * scale
            if len(parts) > 1 and text_width(text, 11.5) + 8 <= values[i] * scale:
                canvas.write(middle, y, text, size=11.5, anchor="middle", colour=ON_PARTS[p % _COLOURS])
            start += values[i]
        total = _amount(totals[i], digits) if finite[i] else "–"
        canvas.write(canvas.left + start * scale + 8, y, total, bold=True)
    swatches = [Rectangle((8, -7), 22, 14, facecolor=fill, edgecolor=edge) for fill in fills]
    about = f"Bars of {len(names)} values; {axis}" + (f"; parts: {', '.join(parts)}" if len(parts) > 1 else "")
    return canvas.svg(about, entries=list(zip(parts, swatches, strict=True)) if len(parts) > 1 else ())


@_with_style
def histogram_plot(
    groups: Mapping[str, Sequence[float]], *, title: str, axis: str, bins: int = 20, caption: str = "",
    simulated: str = "", lines: Sequence[Reference] = (), limits: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Draw the distribution of values: the share of each group's rows in bins of equal width.

    Args:
        groups: values of each group; several are drawn over each other.
        lines: values to compare with, e.g. a threshold (vertical).
        limits: ends of the x axis; from the values when None. Values beyond them count in the bins at the ends.
    """
    words, finite = (title, caption, simulated), {name: _finite(values) for name, values in groups.items()}
    if not any(finite.values()):
        return _nothing(words)
    lines = [r for r in lines if math.isfinite(r.value)]
    every = [v for values in finite.values() for v in values] + [r.value for r in lines if r.vertical]
    low, high = limits or (min(every), max(every))
    if not high > low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(np.clip(v, low, high), edges)[0] / max(1, len(v)) for v in finite.values()]
    canvas, entries = _Canvas(words, height=234, above=32), []
    canvas.mark_y(0, max(map(max, shares)) * 1.08, "share of rows")
    canvas.mark_x(low, high, axis)
    for i, (name, share) in enumerate(zip(groups, shares, strict=True)):
        look = {k: v for k, v in _look(i, dash=_DASHES[i % 6]).items() if not k.startswith("marker")}
        canvas.axes.stairs(share, edges, fill=True, color=look["color"], alpha=0.1 if i else 0.28, linewidth=0)
        canvas.axes.stairs(share, edges, gid="stairs", **look)
        entries.append((f"{name} ({len(finite[name]):,} rows)", _sample(look)))
    entries += canvas.compare(lines)
    return canvas.svg(f"Histogram of {axis} for {', '.join(groups)}", entries=entries)
