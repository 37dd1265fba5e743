"""The page in a real browser: keys, clicks, a reload, a kill; what it asks for and says; phone, dark, accessibility."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.chromium import CHROMIUM, Tab, tab
from support.review_rows import MEANINGS, review_task, served, write_folder
from support.tiny import toy_rows

from hf_synth.correction.audited import read_audited
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.log import read_log
from hf_synth.task.folders import write_stage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. apt-get install chromium"),
]
TASK = review_task()
COUNT = "(document.querySelector('[name=count]') || {value: 'none'}).value"
NOTE = "document.querySelector('.note')?.textContent ?? ''"
SIZES = ((1280, 800), (390, 844))


def axe() -> str:
    """Return the script of axe-core: the file AXE_JS, or that of the package axe-playwright-python."""
    if file := os.environ.get("AXE_JS"):
        return Path(file).read_text(encoding="utf-8")
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs axe-core: pip install axe-playwright-python, or AXE_JS=axe.min.js of `npm pack axe-core`")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


async def press(page: Tab, key: str, *, wait: bool = True) -> None:
    """Press a key, and wait until the page shows what came of it."""
    before = await page.value(COUNT)
    for kind in ("keyDown", "keyUp"):
        await page.ask(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            **({"text": key} if kind == "keyDown" and len(key) == 1 else {}),
        )
    await changed(page, before, wait)


async def changed(page: Tab, before: Any, wait: bool = True) -> None:
    for _ in range(400 if wait else 10):
        if await page.value(COUNT) != before and await page.value("!document.querySelector('[aria-busy]')"):
            return
        await asyncio.sleep(0.05)
    assert not wait, "nothing came of it"


async def click(page: Tab, selector: str) -> None:
    """Click in the middle of an element, as a mouse does."""
    before = await page.value(COUNT)
    box = await page.value(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        await page.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    await changed(page, before, wait=selector.startswith("button[name"))


async def look(page: Tab, width: int, height: int, scheme: str) -> None:
    await page.show(scheme)
    size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    await page.ask("Emulation.setDeviceMetricsOverride", **size)


async def faults(page: Tab, script: str) -> list[Any]:
    """Return what axe-core finds, in both sizes and colour schemes, and what does not fit the screen."""
    await page.value(f"{script};0")
    found: list[Any] = []
    for width, height in SIZES:
        for scheme in ("light", "dark"):
            await look(page, width, height, scheme)
            call = "axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))"
            told = await page.ask("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True)
            found += [(width, scheme, *fault) for fault in told["result"]["value"]]
            if await page.value("document.documentElement.scrollWidth > innerWidth"):
                found.append((width, scheme, "the page is wider than its window"))
    await look(page, 1280, 800, "light")
    return found


def check_quiet(page: Tab, origin: str) -> None:
    """Check that the page asked for nothing elsewhere, and that the browser had nothing to say."""
    asked = {e["request"]["url"] for e in page.of("Network.requestWillBeSent")}
    assert all(url.startswith(origin + "/") or url == "about:blank" for url in asked), asked
    assert page.of("Log.entryAdded") + page.of("Runtime.consoleAPICalled") + page.of("Runtime.exceptionThrown") == []


def decisions(folder: Path, name: str = "reviewer%201") -> list[dict[str, Any]]:
    return read_log(folder / ".hf_synth" / "review" / "labels" / f"{name}.jsonl")[1:]


def test_twenty_keys_a_reload_a_kill_and_on(tmp_path: Path) -> None:
    folder = tmp_path / "syn"
    write_folder(folder, 60)
    texts = {row["text"]: row["id"] for row in read_dataset(folder)}
    seen: list[tuple[str, str]] = []

    async def answer(page: Tab, key: str) -> None:
        seen.append((texts[await page.value(NOTE)], key))
        await press(page, key)
        assert len(decisions(folder)) == int(await page.value(COUNT)), "it was on disk before the next note"

    async def first(url: str) -> None:
        async with tab() as page:
            await page.open(url)
            assert "key=" not in await page.value("location.href"), "the key leaves the address bar"
            for key in "12312xu123":
                await answer(page, key)
            await press(page, "9", wait=False)  # no such label
            await press(page, "k", wait=False)  # the label is hidden: there is none to keep
            assert len(decisions(folder)) == 10
            await page.open(await page.value("location.href"))
            assert int(await page.value(COUNT)) == 10, "after a reload it stands where it stood"
            await press(page, "z")
            seen.pop()
            await click(page, "summary[data-key=c]")
            await page.ask("Input.insertText", text="x marks 3 spots")
            await press(page, "1", wait=False)  # goes into the comment
            await press(page, "Escape", wait=False)
            await answer(page, "2")
            assert decisions(folder)[-1]["comment"] == "x marks 3 spots1"
            check_quiet(page, url.partition("/?")[0])

    async def second(url: str) -> None:
        async with tab() as page:
            await page.open(url)
            for key in "1231231231":
                await answer(page, key)
            await click(page, "button[name=answer][value=reject]")
            check_quiet(page, url.partition("/?")[0])

    with served(folder) as (server, url):
        asyncio.run(first(url))
        server.send_signal(signal.SIGKILL)
        server.wait(10)
    with served(folder) as (server, url):
        asyncio.run(second(url))
        server.send_signal(signal.SIGINT)
        server.wait(60)
    labels = dict(zip("123", TASK.labels, strict=True))
    standing: list[tuple[str, str]] = []
    for event in decisions(folder):
        if event["do"] == "undo":
            standing.pop()
        else:
            standing.append((event["row"], event.get("label", event["do"])))
    assert standing[:-1] == [(id, {"x": "reject", "u": "unsure"}.get(key) or labels[key]) for id, key in seen]
    assert standing[-1][1] == "reject"
    assert len({id for id, _ in standing}) == len(standing) == 21, "no note twice, none lost"
    audited = read_audited(folder / ".hf_synth" / "review" / "labels.csv", TASK)
    assert len(audited) == 18
    assert len(audited.rejected) == 2


def test_the_page_without_a_server_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path / "syn", 30)

    async def look_at(url: str, server: Any) -> str:
        async with tab() as page:
            await page.open(url)
            await press(page, "1")
            note = await page.value(NOTE)
            server.kill()
            server.wait(10)
            await press(page, "2", wait=False)
            await asyncio.sleep(1)
            assert await page.value(NOTE) == note, "the note stays until its answer is saved"
            return str(await page.value("document.getElementById('alert').textContent"))

    with served(tmp_path / "syn") as (server, url):
        assert "does not answer, and this answer may not be saved" in asyncio.run(look_at(url, server))
    assert len(decisions(tmp_path / "syn")) == 1


def test_no_fault_of_accessibility(tmp_path: Path) -> None:
    """Of a note, of one with its label, of a disagreement, of the help, of the end, and of a realism sheet."""
    script, folder = axe(), tmp_path / "syn"
    write_folder(folder, 30)
    write_stage(TASK, toy_rows(30, 1), tmp_path / "gold", stage="gold")

    async def walk(url: str, keys: str, path: str = "") -> dict[str, Any]:
        async with tab() as page:
            await page.open(url)
            found = {"first": await faults(page, script)}
            for key in keys:
                await press(page, key)
            if path:
                await page.open(url.partition("?")[0] + path)
                found["path"] = await faults(page, script)
            await press(page, "?", wait=False)
            found["help"] = await faults(page, script)
            assert await page.value("document.getElementById('help').open")
            await press(page, "x", wait=False)  # behind the list of keys nothing is answered
            text = await page.value("document.body.innerText")
            check_quiet(page, url.partition("/?")[0])
            return found | {"text": text}

    with served(folder, "--n", "6", "--reviewer", "Anna", "--show-llm") as (_, url):
        anna = asyncio.run(walk(url, "kk3xu1"))
        assert "All notes are answered" in anna.pop("text")
    with served(folder, "--reviewer", "Ben") as (_, url):
        ben = asyncio.run(walk(url, "123x11", "?queue=differ"))
        assert "Reviewers answered" in ben.pop("text")
    with served(folder, "--realism", "--n", "8", "--gold", str(tmp_path / "gold")) as (_, url):
        realism = asyncio.run(walk(url, ""))
        assert "How plausible is this note?" in realism.pop("text")
    for found in (anna, ben, realism):
        assert {name: part for name, part in found.items() if part} == {}


def test_a_phone_shows_note_and_labels_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "syn", 30)

    async def measure(url: str) -> dict[str, Any]:
        async with tab() as page:
            await page.open(url)
            await look(page, 390, 844, "light")
            boxes = "[...document.querySelectorAll('.panel fieldset button')].map(b => b.getBoundingClientRect())"
            found = {
                "buttons": await page.value(f"{boxes}.map(b => [b.width, b.height, b.bottom])"),
                "size": await page.value("parseFloat(getComputedStyle(document.querySelector('.note')).fontSize)"),
                "meanings": await page.value("getComputedStyle(document.querySelector('.meanings')).display"),
                "folded": await page.value("!document.querySelector('.meanings').open"),
            }
            await look(page, 1280, 800, "light")
            found["beside"] = await page.value("document.querySelector('.panel').innerText")
            await page.value("document.getElementById('keys-on').click()")
            await press(page, "1", wait=False)  # single keys are off
            return found | {"count": await page.value(COUNT)}

    with served(tmp_path / "syn") as (_, url):
        found = asyncio.run(measure(url))
    assert len(found["buttons"]) == 5
    assert all(width >= 150 and height >= 44 and bottom <= 844 for width, height, bottom in found["buttons"])
    assert found["size"] >= 18
    assert (found["meanings"], found["folded"]) == ("block", True)
    assert all(meaning in found["beside"] for meaning in MEANINGS)
    assert found["count"] == "0"
