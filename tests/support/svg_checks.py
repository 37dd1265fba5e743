"""Checks of pictures and pages, and one figure of each kind."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from defusedxml import ElementTree

from hf_synth.reports.axes import Reference
from hf_synth.reports.drawing import text_width
from hf_synth.reports.plots import Bin, Interval, Series, curve_plot, interval_plot, reliability_plot
from hf_synth.reports.shares import bar_plot, histogram_plot, matrix_plot

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert(1)</script>", "</svg></style><img src=x onerror=alert(1)>", "]]>", '" onload="alert(1)',
    "'><b>", "&lt;script&gt;", "&#x0;", "\x00\x08\x1b[31m", "\u202eesrever\u2066", "\ufeff", "\ud800", "<!--", "-->",
    "<![CDATA[x", "javascript:alert(1)", "[x](javascript:alert(1))", "![x](https://evil.example/p.png)",
    "<https://evil.example>", "`<b>`", "``", "| a | b |\n|---|", "# heading", "#", "> quote", "1. one", "---", "***",
    "_x_", "\\", "\\|", "$x$", "a\n\n- b\n- <i>c</i>", "[a]: https://evil.example", "x" * 300, "界" * 90, "", " ",
)  # fmt: skip


def parsed(svg: str) -> ET.Element:
    root: ET.Element = ElementTree.fromstring(svg)
    return root


def words(element: ET.Element) -> str:
    """Give what a `<text>` shows, without its title."""
    return (element.text or "") + "".join(t.text or "" for t in element.findall(f"{SVG}tspan"))


def shown(svg: str) -> list[str]:
    return [words(t) for t in parsed(svg).iter(f"{SVG}text")]


# --- no text gets out of its place ----------------------------------------------------------------------------------
TAGS = {"svg", "title", "desc", "style", "rect", "g", "text", "tspan", "line", "circle", "polyline", "polygon"}


def assert_harmless_svg(svg: str) -> None:
    for element in parsed(svg).iter():
        assert element.tag.removeprefix(SVG) in TAGS
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "href" not in name
            if name not in ("aria-label",):
                assert "url" not in value
                assert ":" not in value
    assert "url(" not in "".join(s.text or "" for s in parsed(svg).iter(f"{SVG}style"))


def every_plot(a: str, b: str, c: str) -> list[str]:
    told = {"title": a, "caption": b, "simulated": c}
    values = [0.1, 0.7, 0.4]
    lines = [Reference(b, 0.5), Reference(c, 0.3, vertical=True)]
    return [
        interval_plot([Interval(b, 0.4, 0.3, 0.5), Interval(c, 0.7, 0.6, 0.8, True)], axis=a, **told),
        curve_plot([Series(a, [(1, 0.2), (5, 0.4, 0.3, 0.5)]), Series(b, [])], x_axis=b, y_axis=c, lines=lines, **told),
        matrix_plot([values, values, values], [a, b, c], [c, b, a], row_axis=a, column_axis=b, **told),
        reliability_plot({a: [Bin(0.4, 0.5, 9, 0.3, 0.7)], b: []}, **told),
        bar_plot([a, b, c], {a: values, b: values}, axis=c, **told),
        histogram_plot({a: values, b: []}, axis=c, lines=lines, **told),
    ]


class Reader(HTMLParser):
    """Tags, attributes and text of a page, and whether all that was opened was closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.other: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def boxes(svg: str) -> list[tuple[str, float, float, float, float]]:
    """Give each unturned text's box, by its reckoned width, within the picture."""
    found = []
    for group in (parsed(svg), *parsed(svg).iter(f"{SVG}g")):
        shift = float(re.findall(r"-?[\d.]+", group.get("transform", "0 0"))[-1]) if group.tag.endswith("}g") else 0.0
        for t in group.findall(f"{SVG}text"):
            if t.get("transform"):
                continue
            size, bold = float(t.get("font-size", 13)), t.get("font-weight") is not None
            for line in t.findall(f"{SVG}tspan") or [t]:
                wide = text_width(line.text or "", size, bold=bold)
                x, y = float(line.get("x", 0)), float(line.get("y", 0)) + shift
                left = x - {"middle": wide / 2, "end": wide}.get(t.get("text-anchor", ""), 0)
                found.append((line.text or "", left, y - size * 0.8, left + wide, y + size * 0.2))
    return found


def assert_no_text_touches(svg: str) -> None:
    width, height = (float(v) for v in parsed(svg).get("viewBox", "").split()[2:])
    found = [b for b in boxes(svg) if b[0].strip()]
    for text, left, top, right, end in found:
        assert left >= -1, text
        assert right <= width + 1, text
        assert top >= 0, text
        assert end <= height, text
    for i, (one, left, top, right, end) in enumerate(found):
        for other, a, b, c, d in found[i + 1 :]:
            assert not (left < c - 1 and a < right - 1 and top < d - 1 and b < end - 1), f"{one!r} over {other!r}"
