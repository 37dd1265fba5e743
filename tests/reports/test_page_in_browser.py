"""Reports in a real browser: no request, no message, no script; texts do not touch; light, dark, phone and print."""

from __future__ import annotations

import asyncio
import io
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import sample_report
from support.chromium import CHROMIUM, tab
from support.svg_checks import HOSTILE, every_plot

from hf_synth.reports.page import Section, Table, write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. apt-get install chromium"),
]
# each text's box on the page, with the box of its picture
BOXES = """
[...document.querySelectorAll('svg.plot')].map(svg => {
  const box = e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] };
  const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim());
  return {name: svg.querySelector('title').textContent, box: box(svg), texts: texts.map(t => ({
    words: [...t.childNodes].filter(n => n.nodeName != 'title').map(n => n.textContent).join(' '),
    turned: t.hasAttribute('transform'), box: box(t)}))}
})
"""
# a script that got into the page in spite of all
SCRIPT = """
const script = Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'});
document.head.append(script);
typeof window.ran
"""
# the colours of the page, of a picture's ground and of its words
COLOURS = """
[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg .fill-paper')).fill,
 getComputedStyle(document.querySelector('svg text[font-weight]')).fill]
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


def test_hostile_text_does_nothing(tmp_path: Path) -> None:
    acts = ("<script>window.touched=1</script>", "<img src=x onerror='window.touched=1'>",
            "</title></style></svg><svg onload='window.touched=1'>",
            "<link rel=stylesheet href=//127.0.0.1:9/x.css>")  # fmt: skip
    sections = [
        Section(text, text, every_plot(text, text, text), [Table([text, text], [[text, text]], text)], text)
        for text in (*acts, *HOSTILE[:16])
    ]
    file = write_report(tmp_path, acts[0], sections, simulated=acts[1], facts=[(acts[2], acts[3])])
    page = opened(file)
    assert page["touched"] == "undefined"
    assert set(page["requests"]) == {file.as_uri()}
    assert page["messages"] == []
    assert page["thrown"] == []
