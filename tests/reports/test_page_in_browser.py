"""Reports in a real browser: no request, no message, no script; texts do not touch; light, dark, phone and print."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import sample_report
from support.chromium import CHROMIUM, tab
from support.svg_checks import HOSTILE, every_plot

from hf_synth.reports.page import Lead, Section, Table, Tile, write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. apt-get install chromium"),
]
# each text's box on the page, with the box of its picture
BOXES = """
[...document.querySelectorAll('svg.plot')].map(svg => {
  const box = e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] };
  if (!svg.getBoundingClientRect().width) return null;
  const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim());
  return {name: svg.querySelector('title').textContent, box: box(svg), texts: texts.map(t => ({
    words: [...t.childNodes].filter(n => n.nodeName != 'title').map(n => n.textContent).join(' '),
    turned: t.hasAttribute('transform'), box: box(t)}))}
}).filter(Boolean)
"""
# what is wider than the window or can be scrolled sideways, all parts opened
TOO_WIDE = """
(document.querySelectorAll('details').forEach(d => d.open = true),
 [...document.querySelectorAll('body *')].filter(e => {
  const b = e.getBoundingClientRect(), seen = b.width > 1 && b.height > 1;
  return seen && (b.left < -0.5 || b.right > innerWidth + 0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1
    && getComputedStyle(e).overflowX != 'visible');
 }).map(e => e.tagName + '.' + e.getAttribute('class')))
"""
# the texts of the page in their order, without what is not seen
FIRST_TEXTS = """
(() => { const w = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
 while (w.nextNode() && found.length < 3) { const t = w.currentNode.textContent.trim();
  if (t && !w.currentNode.parentElement.ariaHidden) found.push(t) }
 return found })()
"""
SEEN = """
[...document.querySelectorAll('main, header')].map(e => e.innerText).join('\\n')
"""
PRINTED = """
({heights: Math.min(...[...document.querySelectorAll('details > :not(summary)')].map(
    e => e.getBoundingClientRect().height)),
  plots: [...document.querySelectorAll('.broad svg.plot')].filter(e => e.getBoundingClientRect().height > 0).length,
  all: document.querySelectorAll('.broad svg.plot').length,
  narrow: [...document.querySelectorAll('.narrow svg.plot')].filter(e => e.getBoundingClientRect().height > 0).length})
"""
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
# a script that got into the page in spite of all
SCRIPT = """
const script = Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'});
document.head.append(script);
typeof window.ran
"""
# the colours of the page, of a picture's ground and of its words
COLOURS = """
[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg .fill-paper')).fill,
 getComputedStyle(document.querySelector('svg text[font-size="16"]')).fill]
"""


def opened(file: Path) -> dict[str, Any]:
    """Open a report; return what the browser shows, asks for and logs."""

    async def look() -> dict[str, Any]:
        async with tab() as page:
            await page.open(file.as_uri())
            result: dict[str, Any] = {
                "light": await page.look("light"),
                "boxes": await page.value(BOXES),
                "wide": await page.value("[document.documentElement.scrollWidth, innerWidth]"),
                "touched": await page.value("typeof window.touched"),
                "dark": await page.look("dark"),
                "phone": await page.look("light", 390, 844),
                "phone_wide": await page.value("[document.documentElement.scrollWidth, innerWidth]"),
                "paper": [await page.value(COLOURS) for media in ("screen", "print") if await page.show("dark", media)],
                "pdf": await page.printed(),
                "requests": [e["request"]["url"] for e in page.of("Network.requestWillBeSent")],
                "messages": page.of("Log.entryAdded") + page.of("Runtime.consoleAPICalled"),
                "thrown": page.of("Runtime.exceptionThrown"),
            }
            result["ran"] = await page.value(SCRIPT)  # last: it makes the browser complain
            return result

    return asyncio.run(look())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = sample_report.write(tmp_path_factory.mktemp("report"))
    return opened(file) | {"file": file}


def margin_brightness(png: bytes) -> float:
    """Return the mean brightness of the left margin, between 0 and 255."""
    picture = Image.open(io.BytesIO(png)).convert("L")
    return statistics.mean(picture.crop((0, 0, 1, picture.height)).tobytes())


def test_no_request_and_no_message(sample: dict[str, Any]) -> None:
    assert set(sample["requests"]) == {sample["file"].as_uri()}
    assert sample["messages"] == []
    assert sample["thrown"] == []
    assert sample["ran"] == "undefined"  # the content security policy is in force


def test_it_looks_like_a_page(sample: dict[str, Any]) -> None:
    for name in ("light", "dark", "phone"):
        assert sample[name][:8] == b"\x89PNG\r\n\x1a\n"
        assert len(sample[name]) > 50_000
    assert margin_brightness(sample["light"]) > 250  # the left margin: paper
    assert margin_brightness(sample["dark"]) < 40
    assert sample["pdf"][:5] == b"%PDF-"
    assert len(sample["pdf"]) > 20_000
    screen, paper = sample["paper"]  # dark on a screen is light in print
    assert screen == ["rgb(21, 24, 28)", "rgb(21, 24, 28)", "rgb(232, 234, 237)"]
    assert paper == ["rgb(255, 255, 255)", "rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    for name in ("wide", "phone_wide"):
        page, window = sample[name]
        assert page <= window, f"the page is wider than its window: {name}"


def test_no_text_is_cut_or_touches_another(sample: dict[str, Any]) -> None:
    assert len(sample["boxes"]) == sum(len(s.plots) for s in sample_report.sections())
    for plot in sample["boxes"]:
        left, top, right, end = plot["box"]
        for text in plot["texts"]:
            a, b, c, d = text["box"]
            inside = left - 1 <= a and c <= right + 1 and top - 1 <= b and d <= end + 1
            assert inside, f"{text['words']!r} leaves {plot['name']!r}"
        level = [t for t in plot["texts"] if not t["turned"]]
        for i, one in enumerate(level):
            a, b, c, d = one["box"]
            for other in level[i + 1 :]:
                p, q, r, s = other["box"]
                # boxes of lines have some air above and below their letters
                touch = a < r - 1 and p < c - 1 and b < s - 4 and q < d - 4
                assert not touch, f"{one['words']!r} over {other['words']!r} in {plot['name']!r}"


def laid_out(file: Path) -> dict[str, Any]:
    """Open a report on a desk and on a phone; return what is seen of it."""

    async def look() -> dict[str, Any]:
        async with tab() as page:
            await page.open(file.as_uri())
            result: dict[str, Any] = {"first": await page.value(FIRST_TEXTS), "headings": await page.value(HEADINGS)}
            result["folded"] = await page.value(SEEN)
            for name, width in (("desk", 1280), ("phone", 390)):
                for scheme in ("light", "dark"):
                    result[f"{name} {scheme}"] = await page.look(scheme, width, 844, mobile=True)
                result[f"{name} wide"] = await page.value(TOO_WIDE)
                result[f"{name} boxes"] = await page.value(BOXES)
                result[f"{name} seen"] = await page.value(SEEN)
            await page.value("document.querySelectorAll('details').forEach(d => d.open = false)")
            await page.show("light", "print")
            result["print"] = await page.value(PRINTED)
            result["requests"] = [e["request"]["url"] for e in page.of("Network.requestWillBeSent")]
            return result

    return asyncio.run(look())


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return laid_out(sample_report.write_with_lead(tmp_path_factory.mktemp("led")))


def test_the_verdict_is_the_first_text_after_the_title(led: dict[str, Any]) -> None:
    assert led["first"][:2] == ["A sample report", sample_report.LEAD.verdict]
    order = [led["folded"].index(t) for t in ("The verdict", "2 of 9 runs failed", "Simulated: ", "412 of 1,600")]
    assert order == sorted(order)
    assert led["headings"][0] == 1
    assert set(led["headings"][1:]) == {2}, "headings in their order"
    assert "Sample: macro-F1" not in led["folded"], "what is folded is not seen at first"


def test_nothing_is_wider_than_a_phone(led: dict[str, Any]) -> None:
    """No part of the page, and no picture or table in it, is wider than the window or scrolls sideways."""
    assert led["phone wide"] == []
    for plot in led["phone boxes"]:
        for text in plot["texts"]:
            left, _, right, _ = text["box"]
            assert left >= 0, (plot["name"], text["words"])
            assert right <= 390, (plot["name"], text["words"])


def test_every_point_and_number_is_on_a_phone(led: dict[str, Any]) -> None:
    desk, phone = (
        [(b["name"], [t["words"] for t in b["texts"]]) for b in led[f"{w} boxes"]] for w in ("desk", "phone")
    )
    assert [name for name, _ in desk] == [name for name, _ in phone]
    assert len(desk) == sum(len(section.plots) for section in sample_report.sections())
    number = re.compile(r"-?\d[\d,.]*")
    for (name, words), (_, small) in zip(desk, phone, strict=True):
        if name.startswith(("Sample: ", "What became", "Sample cost")):  # dot plots and bars: names and values
            seen = "".join(small).replace(" ", "")  # lines break at other places
            texts = [w for w in words if not number.fullmatch(w) or re.fullmatch(r"-?\d\.\d{3}", w)]
            assert not [text for text in texts if text.replace(" ", "") not in seen], name
    matrix = " ".join(dict(phone)["Noise of the labels of 20 classes"]).replace("\u00a0", " ")
    assert matrix.count("0.90") == 20
    assert matrix.count(" 0.01") == 380, "every cell"
    for text in ("A sample note of no patient.", "column number 8", "row_2", "hf-synth audit x"):
        assert text in led["phone seen"]


def test_what_is_folded_is_printed(led: dict[str, Any]) -> None:
    assert led["print"]["heights"] > 0
    assert led["print"]["plots"] == led["print"]["all"]
    assert led["print"]["narrow"] == 0, "paper has the broad pictures alone"


def test_hostile_text_does_nothing(tmp_path: Path) -> None:
    acts = ("<script>window.touched=1</script>", "<img src=x onerror='window.touched=1'>",
            "</title></style></svg><svg onload='window.touched=1'>",
            "<link rel=stylesheet href=//127.0.0.1:9/x.css>")  # fmt: skip
    sections = [
        Section(text, text, every_plot(text, text, text), [Table([text, text], [[text, text]], text)], text)
        for text in (*acts, *HOSTILE[:16])
    ]
    sections += [dataclasses.replace(section, folded=True) for section in sections[:4]]
    lead = Lead(acts[1], "bad", (acts[0], acts[2], acts[3]), [Tile(a, a, a, "good") for a in acts], acts,
                [(a, a) for a in acts])  # fmt: skip
    file = write_report(tmp_path, acts[0], sections, simulated=acts[1], facts=[(acts[2], acts[3])], lead=lead)
    page = opened(file)
    assert page["touched"] == "undefined"
    assert set(page["requests"]) == {file.as_uri()}
    assert page["messages"] == []
    assert page["thrown"] == []
