"""The canvas of the plots: text that fits, colours for light and dark, axes, a legend, and one flat SVG.

This is the one file that imports matplotlib, which draws the shapes and the numbers of the axes; texts are added as
they are. Its settings are replaced while a picture is drawn, in other threads too.
"""

from __future__ import annotations

import io
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from hf_synth.reports.flat_svg import LIGHT, ON_PARTS, fill_of, flat_svg, format_pixels
from hf_synth.reports.page import clean

if TYPE_CHECKING:
    from matplotlib.artist import Artist

P = ParamSpec("P")
_FOREIGN = re.compile("[^ -~\u00a0-\u024f\u0400-\u045f\u2010-\u2026]")

WIDE, NARROW = 760, 360  # pixels of a picture on a page, and on a phone of 390
ROW, NARROW_ROW = 34, 66  # pixels of a row of a dot plot or of bars
COLOURS = len(ON_PARTS)
MARKERS = "osD^vP"
DASHES = ((), (7, 4), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2, 1, 2, 1, 2))

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "hf_synth", "text.parse_math": False, "axes.unicode_minus": False,
    "font.family": "DejaVu Sans", "font.size": 13, "figure.dpi": 72, "lines.scale_dashes": False, "axes.grid": True,
    "axes.axisbelow": True, "axes.facecolor": "none", "grid.color": LIGHT["grid"], "grid.linewidth": 1,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{axis}tick.labelcolor": LIGHT["muted"] for axis in "xy"}, "xtick.major.size": 0, "ytick.major.size": 0,
    "xtick.major.pad": 6, "ytick.major.pad": 8,
}  # fmt: skip
_LOCK = Lock()  # matplotlib's settings are global


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
    """Break a text after spaces, _, - and / into at most `most` lines of a width; a longer text ends in an ellipsis."""

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


def finite_values(values: Iterable[float]) -> list[float]:
    """Return the values that are finite."""
    return [v for v in values if math.isfinite(v)]


def _tick_text(value: float, _: object = None) -> str:
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def format_length(value: float, digits: int) -> str:
    """Write a length: fixed decimals, powers of ten where it is huge."""
    return f"{value:,.{digits}f}" if value < 1e12 else f"{value:.3g}"


# --- the canvas -----------------------------------------------------------------------------------------------------
class Canvas:
    """A figure in pixels from its upper left corner: title, stamp where it is simulated, axes, legend, caption."""

    def __init__(
        self, words: tuple[str, str, str], *, width: int = WIDE, left: float = 62, right: float = 24, height: float,
        above: float = 6,
    ) -> None:  # fmt: skip
        from matplotlib.figure import Figure

        self.title, self.caption, self.simulated = map(clean, words)
        self.narrow, self.foot = width < 500, 48.0
        self.width, self.left, self.right, self.texts = width, left, width - right, list[Element]()
        room = self.stamp() if self.simulated else 0
        y = self.write(16, 10, self.title, size=16, bold=True, width=width - 32 - room, most=3, down=True) + 4
        self.top, self.end = y + above, y + above + height
        self.figure = Figure((width / 72, 1), facecolor=LIGHT["paper"])
        self.axes = self.figure.add_axes((left / width, 0, (self.right - left) / width, 1))

    def stamp(self) -> float:
        """Draw SIMULATED at the upper right, with the reason as its tooltip; return the width that it takes."""
        wide = text_width("SIMULATED", 10.5, bold=True) + 16
        frame = {
            "x": format_pixels(self.width - 16 - wide),
            "y": "11",
            "width": format_pixels(wide),
            "height": "19",
            "rx": "3",
        }
        look = {"stroke": LIGHT["note"], "class": "fill-soft stroke-note", "fill": LIGHT["soft"]}
        self.texts.append(Element("rect", frame | look))
        self.write(self.width - 16 - wide / 2, 20.5, "SIMULATED", size=10.5, bold=True, colour="note", anchor="middle")
        SubElement(self.texts[-1], "title").text = self.simulated
        return wide + 12

    def write(
        self, x: float, y: float, text: str, *, size: float = 13, width: float = 1e9, most: int = 1, bold: bool = False,
        colour: str = "ink", anchor: str = "", turn: int = 0, down: bool = False,
    ) -> float:  # fmt: skip
        """Write a text of at most so many lines, centred on y, or from y on where `down`; return its lower end."""
        lines, step = wrapped(clean(text), width, size, most=most, bold=bold), size * 1.25
        top = y if down else y - step * len(lines) / 2
        for i, line in enumerate(lines):
            base = format_pixels(top + step * (i + 0.5) + size * 0.35)
            look = {"font-size": f"{size:g}" if size != 13 else "", "font-weight": "600" if bold else "",
                    "text-anchor": anchor, "transform": f"rotate({turn} {x:g} {base})" if turn else ""}  # fmt: skip
            element = Element("text", {"x": format_pixels(x), "y": base} | {k: v for k, v in look.items() if v})
            element.text = line
            element.attrib |= fill_of(colour) if colour != "ink" else {}
            if line.endswith("…") and "…" not in text:
                SubElement(element, "title").text = clean(text)
            self.texts.append(element)
        return top + step * len(lines)

    def mark_x(self, low: float, high: float, name: str, *, log: bool = False, whole: bool = False) -> None:
        """Set the ends of the x axis, mark as many round numbers as have room, and write its name beneath."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        most, decades = max(1, min(7, int((self.right - self.left) / 80))), math.log10(high / low) if log else 0
        steps: Sequence[float] = (1, 1.5, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        if log and most < 5:  # a narrow picture
            steps = (1, 2, 4) if decades < 1 else (1, 3) if decades < 1.5 else (1,)
        locator = LogLocator(subs=steps) if log else MaxNLocator(most, steps=(1, 2, 5, 10), integer=whole)
        self.axes.set(xscale="log" if log else "linear", xlim=(low, high))
        self.axes.xaxis.set(major_locator=locator, major_formatter=_tick_text)
        self.axes.minorticks_off()
        middle = self.width / 2 if self.narrow else (self.left + self.right) / 2
        room = min(middle, self.width - middle) * 2 - 8
        end = self.write(
            middle, self.end + 26, name, anchor="middle", width=room, most=3 if self.narrow else 1, down=True
        )
        self.foot = max(self.foot, end - self.end + 6)

    def mark_y(self, low: float, high: float, name: str) -> None:
        """Set the ends of the y axis, mark round numbers, and write its name above."""
        from matplotlib.ticker import MaxNLocator

        self.axes.set_ylim(low, high)
        self.axes.yaxis.set(major_locator=MaxNLocator(6, steps=(1, 2, 5, 10)), major_formatter=_tick_text)
        self.write(16, self.top - 19, name, width=self.width - 32)

    def mark_rows(
        self, names: Sequence[str], bold: Sequence[int] = (), *, beside: bool = False
    ) -> Iterator[tuple[int, float]]:
        """Name the rows at the left, or above each in a narrow picture; yield the number and the middle of each.

        In a narrow picture a row is `NARROW_ROW` tall, and its lower half is drawn on.

        Args:
            beside: whether the names are at the left even in a narrow picture.
        """
        n, tall, above = len(names), (self.end - self.top) / len(names), self.narrow and not beside
        self.axes.set(ylim=(n - 1 + 0.28, -0.72) if above else (n - 0.5, -0.5), yticks=[])
        for i, name in enumerate(names):
            if above:
                lines = len(wrapped(clean(name), self.width - 32, most=2, bold=i in bold))
                y = self.top + tall * (i + 0.5) - 16.25 * lines
                self.write(16, y, name, width=self.width - 32, most=2, bold=i in bold, down=True)
                yield i, self.top + tall * (i + 0.72)
            else:
                y = self.top + tall * (i + 0.5)
                self.write(self.left - 12, y, name, width=self.left - 24, most=2, bold=i in bold, anchor="end")
                yield i, y

    def compare(self, lines: Iterable[tuple[str, float, bool]]) -> list[tuple[str, Artist]]:
        """Draw lines to compare with, (name, value, vertical) each; return their part of the legend."""
        entries: list[tuple[str, Artist]] = []
        for i, (name, value, vertical) in enumerate(lines):
            look: dict[str, Any] = {"color": LIGHT["edge"], "linewidth": 1.5, "linestyle": (0, DASHES[1 + i % 5])}
            (self.axes.axvline if vertical else self.axes.axhline)(value, gid="reference", **look)
            entries.append((name, sample(look)))
        return entries

    def curve(
        self, points: Sequence[tuple[float, ...]], look: Mapping[str, Any], apart: float, *, band: bool = False
    ) -> None:
        """Draw a curve of (x, y, low, high) shifted by some pixels, with a band or with bars."""
        from matplotlib.transforms import Affine2D

        place = self.axes.transData + Affine2D().translate(apart, 0)
        whole = [p for p in points if len(finite_values(p)) == 4]
        x, low, high = ([p[i] for p in whole] for i in (0, 2, 3))
        if band and len(whole) > 1:
            fill = {"facecolor": look["color"], "alpha": 0.16, "linewidth": 0}
            self.axes.fill_between(x, low, high, transform=place, gid="band", **fill)
        else:
            bar = {"color": look["color"], "linewidth": 1.6, "marker": "_", "markersize": 7, "markeredgewidth": 1.6}
            self.axes.plot([x, x], [low, high], transform=place, gid="bar", **bar)
        self.axes.plot([p[0] for p in points], [p[1] for p in points], transform=place, gid="curve", **look)

    def cells(self, cells: Sequence[tuple[int, int]], dx: float, dy: float, **look: Any) -> None:
        """Draw cells (row, column) of a matrix as one shape, with a gap around each."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * (0.5 - dx, 0.5 - dy)
        paths = [Path(corners + np.array([j, i]), closed=True) for i, j in cells]
        self.axes.add_patch(PathPatch(Path.make_compound_path(*paths), **look))

    def svg(self, about: str, *, below: float | None = None, entries: Sequence[tuple[str, Artist]] = ()) -> str:
        """Add legend and caption; return the picture with one sentence for those who cannot see it."""
        from matplotlib.transforms import Affine2D

        left = 16 if self.narrow else self.left
        room = max((text_width(clean(name), 12.5) for name, _ in entries), default=0) + 64
        columns = max(1, min(len(entries), int((self.right - left + 20) / room)))
        places, y = [], self.end + (self.foot if below is None else below)
        for start in range(0, len(entries), columns):
            ends = []
            for i, (name, artist) in enumerate(entries[start : start + columns]):
                x = left + room * i
                most = 4 if self.narrow else 1
                end = self.write(x + 42, y + 2, name, size=12.5, width=self.right - x - 42, most=most, down=True)
                places.append((artist, x, y + 10))
                ends.append(end)
            y = max(y + 22, max(ends) + 4)
        end = y + 4 if entries else y
        if self.caption:
            end = self.write(16, end, self.caption, size=11.5, colour="muted", width=self.width - 32, most=8, down=True)
        height = math.ceil(end + 8)
        for artist, x, at in places:
            artist.set_transform(Affine2D().translate(x, height - at))
            self.figure.add_artist(artist)
        x, y, wide, tall = self.left, height - self.end, self.right - self.left, self.end - self.top
        self.figure.set_size_inches(self.width / 72, height / 72)
        self.axes.set_position((x / self.width, y / height, wide / self.width, tall / height))
        desc = ". ".join(filter(None, [self.simulated and "Simulated", clean(about), self.caption]))
        for artist in self.figure.findobj():
            artist.set_clip_on(False)
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        return flat_svg(file.getvalue(), self.texts, self.width, height, self.title, desc)


class Picture(str):
    """The SVG of a picture, which can be drawn again for a narrow screen."""

    __slots__ = ("_again",)
    _again: Callable[[], str]

    def __new__(cls, svg: str, again: Callable[[], str]) -> Picture:
        """Return the text of an SVG, with what draws it again."""
        made = super().__new__(cls, svg)
        made._again = again
        return made

    @property
    def narrow(self) -> str:
        """The same picture for a screen of 390 pixels."""
        return self._again()


def with_style(plot: Callable[P, str]) -> Callable[P, Picture]:
    """Draw with our settings instead of the user's, one picture at a time."""

    def drawn(*args: Any, **kwargs: Any) -> str:
        from matplotlib import style

        with _LOCK, style.context(["default", _STYLE]):
            return plot(*args, **kwargs)

    @wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Picture:
        return Picture(drawn(*args, **kwargs), partial(drawn, *args, **{**kwargs, "width": NARROW}))

    return draw


def draw_empty(words: tuple[str, str, str], width: int) -> str:
    """Draw a picture that has no value."""
    canvas = Canvas(words, height=36, width=width)
    canvas.axes.set_axis_off()
    canvas.write(
        16, canvas.top + 14, "nothing to show: no value was measured", colour="muted", width=width - 32, most=2
    )
    return canvas.svg("No value", below=0)


# --- axes -----------------------------------------------------------------------------------------------------------
def room_for(names: Iterable[str]) -> float:
    """Return the pixels at the left for the names of rows: they break where they are long."""
    return min(max(text_width(clean(n)[:400], bold=True) for n in names) + 30, 320)


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis: the values with some room, inside 0..1 where all are shares."""
    known = finite_values(values)
    low, high = min(known), max(known)
    share = low >= 0 and high <= 1
    room = max((high - low) * 0.08 or abs(high) * 0.1, 0.02 if share or high == low else 0)
    return low - room if low < 0 else max(0.0, low - room), min(1.0, high + room) if share else high + room


def curve_ends(xs: Sequence[float], log: bool) -> tuple[float, float]:
    """Return the ends of the x axis of curves, with some room."""
    low, high = min(xs), max(xs)
    if log:
        return (low * 0.9, high * 1.1) if high > low else (low / 2, high * 2)
    room = (high - low) * 0.03 or abs(high) * 0.5 or 1.0
    return low - room, high + room


def series_style(i: int, *, thick: float = 2, dash: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the colour, the dashes and the marker of a series."""
    line = {"color": LIGHT[f"s{i % COLOURS}"], "linewidth": thick, "linestyle": (0, dash) if dash else "-"}
    return line | {"marker": MARKERS[i % 6], "markersize": 9, "markeredgewidth": 0}


def sample(look: Mapping[str, Any]) -> Artist:
    """Return the piece of a line in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([0, 17, 34], [0, 0, 0], markevery=[1], **look)


def swatch(colour: str) -> Artist:
    """Return the piece of a bar in a legend."""
    from matplotlib.patches import Rectangle

    return Rectangle((8, -7), 22, 14, facecolor=colour, edgecolor=LIGHT["edge"])
