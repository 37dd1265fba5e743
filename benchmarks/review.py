"""How long a reviewer waits from a key to the next note, with the decision on disk: a review of 5,000 notes.

The page is driven by real keys in headless Chromium; the time is taken in the page, from the keydown event to the frame
in which the next note is painted. Beside it the server's part alone, over HTTP, at the beginning and at the end of the
review, of one reviewer and with a second one whose decisions are on disk.

    python benchmarks/review.py [--notes 5000] [--keys 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.chromium import tab
from support.review_rows import Browser, review_task, served, write_folder

from hf_synth.gold.adoption import read_dataset
from hf_synth.review.session import Session
from hf_synth.review.sheets import load_sheet

_TIMER = """
window.waits = [];
let start = 0;
const channel = new MessageChannel();
channel.port1.onmessage = () => waits.push(performance.now() - start);  // after the frame was painted
document.addEventListener("keydown", event => { start = event.timeStamp }, true);
new MutationObserver(changes => {
  const shown = changes.some(c => [...c.addedNodes].some(n => n.nodeName === "MAIN"));
  if (shown) requestAnimationFrame(() => channel.port2.postMessage(0));
}).observe(document.getElementById("place"), {childList: true});
0
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
        show_line("a decision on disk alone (write and fsync)", disk(Path(folder), args.keys))
        sample = ("--n", str(args.notes), "--reviewer")
        with served(syn, *sample, "Anna") as (server, url):
            show_line("server alone, first notes", over_http(url, args.keys, server.pid))
            show_line("keys in Chromium, first notes", asyncio.run(keys(url, args.keys)))
        for name in ("Anna", "Ben"):
            fill(syn, name, args.notes - 2 * args.keys - 5)
        with served(syn, *sample, "Ben") as (server, url):
            show_line("server alone, last notes, two reviewers", over_http(url, args.keys, server.pid))
            show_line("keys in Chromium, last notes, two reviewers", asyncio.run(keys(url, args.keys)))
    print(f"load average {os.getloadavg()[0]:.1f} at the end; {version()}")


def fill(folder: Path, name: str, until: int) -> None:
    """Answer notes until so many have an answer, as the server would, but without waiting for the disk."""
    task, rows = review_task(), read_dataset(folder)
    sheet = load_sheet(task, rows, folder / ".hf_synth" / "review" / "sheet.json")
    session = Session(task, folder, sheet, name)
    file = session.streams / f"{name}.jsonl"
    session.close()
    ids = [id for id in sheet.items if id not in session.own.answers]
    with file.open("a", encoding="utf-8") as log:
        for i, id in enumerate(ids[: until - len(session.own.answers)]):
            label = task.labels[(i if name == "Anna" else i // 3) % 3]
            log.write(json.dumps({"at": "", "row": id, "do": "label", "label": label}) + "\n")


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


def over_http(url: str, n: int, pid: int) -> list[float]:
    """Send n answers, each when the one before it was answered; print the processor time of the server for each."""
    browser, waits, before = Browser(url), [], processor_time(pid)
    for i in range(n):
        form = browser.form() | {"answer": ("label:mild", "label:none", "reject")[i % 3]}
        start = time.perf_counter()
        browser.html = browser.post(form)
        waits.append(time.perf_counter() - start)
    print(f"processor time of the server: {1000 * (processor_time(pid) - before) / n:.1f} ms an answer")
    return waits


def processor_time(pid: int) -> float:
    """Return the seconds that a process has computed (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
