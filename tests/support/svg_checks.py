"""Checks of pictures and pages, and one picture of each kind."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from defusedxml import ElementTree

from hf_synth.reports import plots
from hf_synth.reports.canvas import text_width

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


def shown(svg: str) -> list[str]:
    """Return the lines of text of a picture."""
    return [t.text or "" for t in parsed(svg).iter(f"{SVG}text")]


# --- no text gets out of its place ----------------------------------------------------------------------------------
TAGS = {"svg", "title", "desc", "style", "rect", "text", "path"}


def assert_harmless_svg(svg: str) -> None:
    for element in parsed(svg).iter():
        assert element.tag.removeprefix(SVG) in TAGS
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "href" not in name
            assert "url" not in value
            assert ":" not in value
    assert "url(" not in "".join(s.text or "" for s in parsed(svg).iter(f"{SVG}style"))


def every_plot(a: str, b: str, c: str) -> list[str]:
    words = {"title": a, "caption": b, "simulated": c}
    values = [0.1, 0.7, 0.4]
    lines = [plots.Reference(b, 0.5), plots.Reference(c, 0.3, vertical=True)]
    curves = [plots.Series(a, [(1, 0.2), (5, 0.4, 0.3, 0.5)]), plots.Series(b, [])]
    return [
        plots.interval_plot(
            [plots.Interval(b, 0.4, 0.3, 0.5), plots.Interval(c, 0.7, 0.6, 0.8, True)], axis=a, **words
        ),
        plots.curve_plot(curves, x_axis=b, y_axis=c, lines=lines, **words),
        plots.matrix_plot([values, values, values], [a, b, c], [c, b, a], row_axis=a, column_axis=b, **words),
        plots.reliability_plot({a: [plots.Bin(0.4, 0.5, 9, 0.3, 0.7)], b: []}, **words),
        plots.bar_plot([a, b, c], {a: values, b: values}, axis=c, **words),
        plots.histogram_plot({a: values, b: []}, axis=c, lines=lines, **words),
    ]


class Reader(HTMLParser):
    """Tags, attributes and text of a page, and whether all that was opened was closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def assert_no_text_touches(svg: str) -> None:
    """Check that level texts lie in the picture and not over each other, by matplotlib's widths."""
    width, height = (float(v) for v in parsed(svg).get("viewBox", "").split()[2:])
    boxes: list[tuple[str, float, float, float, float]] = []
    for t in parsed(svg).iter(f"{SVG}text"):
        if t.get("transform") or not (text := t.text or "").strip():
            continue
        size = float(t.get("font-size", 13))
        wide = text_width(text, size, bold="font-weight" in t.attrib)
        left = float(t.get("x", 0)) - {"middle": wide / 2, "end": wide}.get(t.get("text-anchor", ""), 0)
        top, end = float(t.get("y", 0)) - size * 0.8, float(t.get("y", 0)) + size * 0.2
        assert left >= -1, text
        assert left + wide <= width + 1, text
        assert top >= 0, text
        assert end <= height, text
        for other, a, b, c, d in boxes:
            assert not (left < c - 1 and a < left + wide - 1 and top < d - 1 and b < end - 1), (
                f"{text!r} over {other!r}"
            )
        boxes.append((text, left, top, left + wide, end))
