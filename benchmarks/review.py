"""How long a reviewer waits from a key to the next note, with the decision on disk: a review of 5,000 notes.

The page is driven by real keys in headless Chromium; the time is taken in the page, from the keydown event to the frame
in which the next note is painted. Beside it the server's part alone, over HTTP, at the beginning and at the end of the
review, of one reviewer and with a second one whose decisions are on disk.

    python benchmarks/review.py [--notes 5000] [--keys 300]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.chromium import tab
from support.review_rows import Browser, served, write_folder

_TIMER = """
window.waits = [];
document.addEventListener("keydown", event => {
  const start = event.timeStamp, before = document.querySelector("[name=count]").value;
  const look = () => {
    const now = document.querySelector("[name=count]");
    if (now && now.value !== before) requestAnimationFrame(() => waits.push(performance.now() - start));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}, true);
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--notes", type=int, default=5_000)
    parser.add_argument("--keys", type=int, default=300)
    args = parser.parse_args()
    print(f"{args.notes:,} notes, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    with tempfile.TemporaryDirectory() as folder:
        syn = Path(folder) / "syn"
        write_folder(syn, args.notes)
        print(f"a decision on disk (write and fsync): {show(disk(Path(folder), args.keys))}")
        with served(syn, "--n", str(args.notes), "--reviewer", "Anna") as (_, url):
            show_line("keys in Chromium, first notes", asyncio.run(keys(url, args.keys)))
            show_line("server alone, first notes", over_http(url, args.keys))
            fill(url, args.notes - args.keys)
            show_line("server alone, last notes", over_http(url, args.keys - 10))
        with served(syn, "--reviewer", "Ben") as (_, url):
            fill(url, args.notes - args.keys)
            show_line("keys in Chromium, last notes, a second reviewer", asyncio.run(keys(url, args.keys - 10)))
    print(f"load average {os.getloadavg()[0]:.1f} at the end; {version()}")


async def keys(url: str, n: int) -> list[float]:
    """Press n keys, each when the note before it was answered; return the waits in seconds."""
    async with tab() as page:
        await page.open(url)
        await page.value(_TIMER)
        for i in range(n):
            key = "123xu"[i % 5]
            await page.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            await page.ask("Input.dispatchKeyEvent", type="keyUp", key=key)
            while await page.value("waits.length") <= i:
                await asyncio.sleep(0.005)
        return [wait / 1000 for wait in await page.value("waits")]


def over_http(url: str, n: int) -> list[float]:
    browser, waits = Browser(url), []
    for i in range(n):
        form = browser.form() | {"answer": ("label:mild", "label:none", "reject")[i % 3]}
        start = time.perf_counter()
        browser.html = browser.post(form)
        waits.append(time.perf_counter() - start)
    return waits


def fill(url: str, until: int) -> None:
    """Answer notes until so many have an answer."""
    browser = Browser(url)
    while int(re.search(r"([\d,]+) of", browser.html)[1].replace(",", "")) < until:  # type: ignore[index]
        browser.answer("label:mild")


def disk(folder: Path, n: int) -> list[float]:
    waits = []
    with (folder / "probe").open("wb") as file:
        for _ in range(n):
            start = time.perf_counter()
            file.write(b"x" * 150)
            file.flush()
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - start)
    return waits


def show(waits: list[float]) -> str:
    ordered = sorted(waits)
    p95, p99 = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.95, 0.99))
    return (
        f"median {1000 * statistics.median(ordered):.0f} ms, p95 {1000 * p95:.0f} ms, p99 {1000 * p99:.0f} ms, "
        f"max {1000 * ordered[-1]:.0f} ms (n={len(ordered)})"
    )


def show_line(what: str, waits: list[float]) -> None:
    print(f"{what}: {show(waits)}", flush=True)


def version() -> str:
    from support.chromium import CHROMIUM

    return subprocess.run([str(CHROMIUM), "--version"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
