"""From matplotlib's SVG to one flat SVG with two sets of colours, for light and dark; ids come from its content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_SPACE, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

# Light and dark. Series (s) and parts of bars (p) differ for colour-blind readers too, and by more than colour.
PALETTE = {
    "ink": ("#1b1f24", "#e8eaed"), "muted": ("#515c68", "#a8b3bf"), "grid": ("#d7dbe0", "#3a4149"),
    "edge": ("#6b7682", "#8b96a2"), "paper": ("#ffffff", "#15181c"), "soft": ("#fff1cc", "#4a3a0c"),
    "mark": ("#0b6e4f", "#4cc38a"), "note": ("#9a3412", "#f0906f"), "cell": ("#4f94d4", "#2a66a5"),
    "s0": ("#0a4a86", "#4a93f0"), "s1": ("#9e2f0c", "#d9582e"), "s2": ("#2a9d74", "#63e0a8"),
    "s3": ("#c653c0", "#bb6fb5"), "s4": ("#9c8110", "#f2d65c"), "s5": ("#5d6a78", "#c9d3de"),
    "p0": ("#0b5c99", "#4a9fe0"), "p1": ("#f0a04b", "#9c5410"), "p2": ("#c9d0d8", "#56606b"),
    "p3": ("#5b2a6e", "#e0b4ee"), "p4": ("#6fbf9c", "#276b4f"), "p5": ("#8c6d1f", "#f0dc96"),
}  # fmt: skip
ON_PARTS = ("paper", "ink", "ink", "paper", "ink", "paper")  # of the numbers in p0 to p5
LIGHT = {name: light for name, (light, _) in PALETTE.items()}
_NAMES = {light: name for name, light in LIGHT.items()}
_KEPT = re.compile("fill|stroke|opacity|(fill|stroke)-opacity|stroke-width|stroke-dasharray|text-anchor")


def format_pixels(value: float | str) -> str:
    """Write a place in pixels with two decimals at most."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def fill_of(name: str) -> dict[str, str]:
    """Return a colour as an attribute for the light and as a class for the dark."""
    return {"fill": LIGHT[name], "class": f"fill-{name}"}


def flat_svg(drawn: str, texts: Sequence[Element], width: int, height: int, title: str, desc: str) -> str:
    """Return a figure that matplotlib wrote as SVG, and texts, as one flat SVG; its ids come from its content."""
    root = ElementTree.fromstring(drawn)
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
        f'font-family="system-ui, sans-serif" font-size="13" fill="{LIGHT["ink"]}">\n'
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
                shape.set(
                    "transform", f"translate({format_pixels(child.get('x', 0))} {format_pixels(child.get('y', 0))})"
                )
            places = {"x": child.get("x"), "y": child.get("y")} if tag == "text" else {"d": marker.get("d")}
            for key, value in places.items():
                shape.set(key, " ".join(re.sub(r"-?\d+\.\d+", lambda n: format_pixels(n[0]), str(value)).split()))
            shape.attrib |= {k: v for k, v in look.items() if _KEPT.fullmatch(k)}
            classes = [f"{k}-{_NAMES[v]}" for k, v in look.items() if v in _NAMES]
            shape.set("class", " ".join(filter(None, [kind, *classes])))
            if look.get("fill") != "none" or "stroke" in look:
                yield shape
