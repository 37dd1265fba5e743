"""What all pictures share: colours, text that fits, scales, and the frame of an SVG; pure text, no library.

A picture is readable in light, dark and in print. Its title, its caption and the word that it is simulated stand in it,
so that they travel with it. All text from outside passes `clean` and is escaped.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from html import escape

# Blue, vermilion, green, purple, ochre, slate: they differ without red, green or blue cones too, and nothing is told by
# colour alone.
LIGHT = {
    "ink": "#1b1f24", "muted": "#515c68", "grid": "#d7dbe0", "edge": "#6b7682", "paper": "#ffffff", "soft": "#fff1cc",
    "mark": "#0b6e4f", "dot": "#515c68",
    "s0": "#0a4a86", "s1": "#9e2f0c", "s2": "#2a9d74", "s3": "#c653c0", "s4": "#9c8110", "s5": "#5d6a78",
    "p0": "#0b5c99", "p1": "#f0a04b", "p2": "#c9d0d8", "p3": "#5b2a6e", "p4": "#6fbf9c", "p5": "#8c6d1f",
}  # fmt: skip
DARK = {
    "ink": "#e8eaed", "muted": "#a8b3bf", "grid": "#3a4149", "edge": "#8b96a2", "paper": "#15181c", "soft": "#4a3a0c",
    "mark": "#4cc38a", "dot": "#a8b3bf",
    "s0": "#4a93f0", "s1": "#d9582e", "s2": "#63e0a8", "s3": "#bb6fb5", "s4": "#f2d65c", "s5": "#c9d3de",
    "p0": "#4a9fe0", "p1": "#c46f14", "p2": "#56606b", "p3": "#e0b4ee", "p4": "#2f7d5d", "p5": "#f0dc96",
}  # fmt: skip
COLOURS = 6  # series and parts that differ in colour; from then on dashes and order tell them apart
LEVELS = 10  # shades of a matrix cell
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2 1 2 1 2")
_RAMP = {"light": ("#f3f7fb", "#08427a"), "dark": ("#1b2530", "#9ad0ff")}

_HIDDEN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # marks that turn the order of text
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW = frozenset("ijlIftr.,:;'|!()[]{}`/ ")
_WIDE = frozenset("mwMW@%&—…")


# --- text -----------------------------------------------------------------------------------------------------------


def clean(text: object) -> str:
    """Give text that may stand in XML and in a line: marks that turn its order and control characters become �."""
    return _NOT_XML.sub("\ufffd", _HIDDEN.sub("\ufffd", str(text)))


def escaped(text: object) -> str:
    """Give text for HTML or SVG, also inside an attribute."""
    return escape(clean(text), quote=True)


def text_width(text: str, size: float = 13, *, bold: bool = False) -> float:
    """Reckon the width of a text in pixels, rather too wide than too narrow; fonts differ."""
    ems = 0.0
    for c in text:
        if c in _NARROW:
            ems += 0.36
        elif c in _WIDE or unicodedata.east_asian_width(c) in "WF":
            ems += 1.02
        elif not unicodedata.combining(c):
            ems += 0.72 if c.isupper() else 0.6
    return ems * size * (1.16 if bold else 1)


def shortened(text: str, width: float, size: float = 13, *, bold: bool = False) -> str:
    """Cut a text to a width, with an ellipsis where something is missing."""
    if text_width(text, size, bold=bold) <= width:
        return text
    room, end = width - text_width("…", size, bold=bold), 0
    for end, c in enumerate(text):  # noqa: B007
        room -= text_width(c, size, bold=bold)
        if room < 0:
            break
    return text[:end].rstrip() + "…"


def wrapped(text: str, width: float, size: float = 13, *, most: int = 8, bold: bool = False) -> list[str]:
    """Break a text into lines of a width, at most so many; a word that is too long breaks after _ - / or is cut."""
    lines: list[str] = []
    for word in re.findall(r"[^\s_/-]*[_/-]+|[^\s_/-]+|\s+", clean(text)):
        if word.isspace():
            word = " "
        if lines and text_width(lines[-1] + word.rstrip(), size, bold=bold) <= width:
            lines[-1] += word
        elif word != " ":
            lines.append(word)
    lines = [line.strip() for line in lines] or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [shortened(line, width, size, bold=bold) for line in lines]


def number(value: float, digits: int = 3) -> str:
    """Write a number for a reader: fixed decimals, what is too small for them in powers of ten, a dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"


def label(
    x: float, y: float, text: object, *, width: float = 1e9, anchor: str = "start", size: float = 13,
    bold: bool = False, fill: str = "ink", most: int = 1, turn: int = 0,
) -> str:  # fmt: skip
    """Give a `<text>` of at most so many lines, centred on y; what had to be cut stands whole in its `<title>`."""
    whole = clean(text)
    one = " ".join(whole.split())
    lines = wrapped(whole, width, size, most=most, bold=bold) if most > 1 else [shortened(one, width, size, bold=bold)]
    cut = f"<title>{escape(whole)}</title>" if any("…" in line for line in lines) and "…" not in whole else ""
    step = size * 1.2
    first = y + size * 0.35 - step * (len(lines) - 1) / 2
    attributes = f'class="{fill}" font-size="{size:g}"' + (' font-weight="600"' if bold else "")
    attributes += "" if anchor == "start" else f' text-anchor="{anchor}"'
    attributes += f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
    if len(lines) == 1:
        return f'<text {attributes} x="{x:.1f}" y="{first:.1f}">{escape(lines[0])}{cut}</text>'
    spans = "".join(
        f'<tspan x="{x:.1f}" y="{first + i * step:.1f}">{escape(line)}</tspan>' for i, line in enumerate(lines)
    )
    return f"<text {attributes}>{spans}{cut}</text>"


def room_for(names: Sequence[str], width: float) -> int:
    """Give where a plot may begin at the right of its names: they break where they are long."""
    return round(min(max([text_width(n, bold=True) for n in names], default=0) + 30, width * 0.42))


# --- scales ---------------------------------------------------------------------------------------------------------


def finite(values: Iterable[float]) -> list[float]:
    """Leave out what is not a finite number."""
    return [v for v in values if math.isfinite(v)]


def spread(values: Iterable[float], *, share: bool = True) -> tuple[float, float]:
    """Give the ends of an axis: the values with some room, inside 0..1 where all are shares."""
    known = finite(values)
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = (high - low) * 0.08 or max(0.02, abs(high) * 0.1)
    if share and low >= 0 and high <= 1:
        room = max(0.02, room)
        return max(0.0, low - room), min(1.0, high + room)
    return (low - room if low < 0 or low - room > 0 else 0.0), high + room


def scale(low: float, high: float, start: float, end: float, *, log: bool = False) -> Callable[[float], float]:
    """Give the function from values to pixels; a log scale needs ends above 0."""
    place: Callable[[float], float] = math.log10 if log else float
    a, b = place(low), place(high)

    def at(value: float) -> float:
        return round(start + (place(value) - a) / ((b - a) or 1.0) * (end - start), 1)

    return at


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Give round positions between two ends, at most so many."""
    width = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(width / most))
    step = next(power * s for s in (1, 2, 5, 10, 20) if width / (power * s) <= most - 0.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Give round positions for a log axis: four at least where there are so many, and not many more."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [v for v in (float(f"{s * 10.0**p:.12g}") for p in powers for s in steps)
                 if low * 0.999 <= v <= high * 1.001]  # fmt: skip
        if len(found) >= 4:
            break
    return found


def tick_text(value: float) -> str:
    """Write the number at a tick."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


# --- the frame ------------------------------------------------------------------------------------------------------


def picture(
    body: Sequence[str], *, width: int, height: float, title: str, caption: str = "", simulated: str = "",
    about: str = "",
) -> str:  # fmt: skip
    """Put a drawing between its title and its caption, as one SVG.

    Args:
        body: elements, drawn from y = 0 to `height`.
        simulated: why the figures are no clinical ones; a line across the picture says so.
        about: one sentence for those who cannot see it.
    """
    head = wrapped(title, width - 32, 16, most=3, bold=True)
    top = 14 + 20 * len(head)
    parts = [label(16, 20 + 20 * i, line, size=16, bold=True) for i, line in enumerate(head)]
    if simulated:
        lines = wrapped(f"Simulated: {simulated}", width - 56, 12.5, most=4, bold=True)
        tall = 10 + 16 * len(lines)
        parts.append(f'<rect class="soft" x="16" y="{top}" width="{width - 32}" height="{tall}" rx="3"/>')
        parts += [label(28, top + 13 + 16 * i, line, size=12.5, bold=True) for i, line in enumerate(lines)]
        top += tall + 6
    top += 6
    parts.append(f'<g transform="translate(0 {top})">{"".join(body)}</g>')
    end = top + height
    if caption:
        lines = wrapped(caption, width - 32, 11.5)
        parts += [label(16, end + 12 + 15 * i, line, size=11.5, fill="muted") for i, line in enumerate(lines)]
        end += 8 + 15 * len(lines)
    tall = math.ceil(end + 8)
    drawn = "\n".join(parts)
    said = ". ".join(filter(None, [f"Simulated: {simulated}" if simulated else "", about, caption]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width} {tall}" width="{width}" '
        f'height="{tall}" role="img" aria-label="{escaped(title)}" font-family="system-ui, sans-serif">\n'
        f"<title>{escaped(title)}</title><desc>{escaped(said)}</desc>\n<style>{_style(drawn)}</style>\n"
        f'<rect class="paper" width="{width}" height="{tall}"/>\n{drawn}\n</svg>\n'
    )


def _style(drawn: str) -> str:
    """Give the rules for the classes that a drawing uses, light, then dark, then print, which is light again."""
    used = {name for names in re.findall(r'class="([^"]*)"', drawn) for name in names.split()} | {"paper"}
    light, dark = (_rules(colours, ramp, used) for colours, ramp in ((LIGHT, "light"), (DARK, "dark")))
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}@media print{{{light}}}"


def _rules(colours: dict[str, str], ramp: str, used: set[str]) -> str:
    rules = []
    if "halo" in used:  # words over lines
        rules.append(
            f".plot .halo{{paint-order:stroke;stroke:{colours['paper']};stroke-width:4px;stroke-linejoin:round}}"
        )
    for name in sorted(used):
        if name in colours:
            rules.append(f".plot .{name}{{fill:{colours[name]}}}")
        elif name[:1] == "l" and name[1:] in colours:
            rules.append(f".plot .{name}{{stroke:{colours[name[1:]]}}}")
        elif name[:1] == "c" and name[1:].isdigit():
            rules.append(f".plot .{name}{{fill:{shade(ramp, int(name[1:]))}}}")
        elif name[:1] == "t" and name[1:].isdigit():
            rules.append(f".plot .{name}{{fill:{readable_on(shade(ramp, int(name[1:])))}}}")
        elif name[:1] == "t" and name[1:] in colours:
            rules.append(f".plot .{name}{{fill:{readable_on(colours[name[1:]])}}}")
    return "".join(rules)


# --- colours --------------------------------------------------------------------------------------------------------


def shade(ramp: str, level: int) -> str:
    """Give the colour of a matrix cell, "light" or "dark", from level 0 (none of its row) to LEVELS - 1 (all)."""
    a, b = (_rgb(colour) for colour in _RAMP[ramp])
    mixed = [round(x + (y - x) * level / (LEVELS - 1)) for x, y in zip(a, b, strict=True)]
    return "#" + "".join(f"{v:02x}" for v in mixed)


def contrast(one: str, other: str) -> float:
    """Give the contrast of two colours between 1 and 21, as WCAG 2 defines it."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def readable_on(colour: str) -> str:
    """Give black or white, whichever is easier to read on a colour: always 4.5 or more."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, colour))


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
