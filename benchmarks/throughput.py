"""Throughput of LLM calls, compared with the limit of the endpoint: rows x latency / concurrency.

    python benchmarks/throughput.py [speed|faults|rate|memory|kill|generate ...] [--out FILE]

Every figure is of a whole process against `benchmarks/llm_server.py` on loopback, which has no model. The comparison is
a plain loop over openai's AsyncOpenAI, without a journal. Machines are noisy: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Facts = dict[str, Any]


@contextmanager
def server(**options: float) -> Iterator[str]:
    """Run an endpoint within a block."""
    flags = [x for name, value in options.items() for x in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen([sys.executable, HERE / "llm_server.py", *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stats(url: str) -> Facts:
    """Return the counts of an endpoint."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        return dict(json.loads(reply.read()))


def start(client: str, url: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Start one client in a new process."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = [x for name, value in options.items() for x in (f"--{name}", str(value))]
    command = [sys.executable, HERE / "throughput_clients.py", client, "--url", url, "--folder", folder, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def measure(client: str, folder: Path, *, faults: Facts | None = None, **options: Any) -> Facts:
    """Run one client against a new endpoint and measure its process."""
    shutil.rmtree(folder, ignore_errors=True)
    with server(**(faults or {})) as url:
        began, clock = time.time(), time.perf_counter()
        process = start(client, url, folder, **options)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - clock
        process.stdout.close()
        counts = stats(url)
    if process.returncode:
        raise SystemExit(f"{client} ended with {process.returncode}")
    ready, end = folder / "ready", folder / "made"
    return {
        "client": client, **json.loads(output), "wall_s": round(wall, 2),
        "first_request_s": round(counts["first"] - began, 2),
        "asking_s": round(counts["last"] - counts["first"], 2),
        "after_start_s": round(float(end.read_text()) - float(ready.read_text()), 2) if end.exists() else None,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "requests": counts["requests"], "429": counts.get("429", 0), "paid_again": counts["paid_again"],
    }  # fmt: skip


def show(title: str, limit: float, rows: list[Facts]) -> list[str]:
    """Print one table as Markdown; return its lines."""
    head = ("client", "rows", "calls s", "x limit", "process s", "x limit", "first request s", "CPU s")
    head += ("peak MB", "requests", "429")
    lines = [f"\n### {title}", f"Limit: {limit:.2f} s.\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {r['client']} | {r['good']:,} | {r['asking_s']} | {r['asking_s'] / limit:.2f} | {r['wall_s']} | "
        f"{r['wall_s'] / limit:.2f} | {r['first_request_s']} | {r['cpu_s']} | {r['peak_mb']:.0f} | {r['requests']:,} | "
        f"{r['429']} |"
        for r in rows
    ]
    print("\n".join(lines), flush=True)
    return lines


def speed(folder: Path) -> list[str]:
    """Measure 64 and 512 calls at the same time, and with some slow answers."""
    clients = ("chat", "bare-aiohttp", "bare-httpx")
    lines = show("2,000 rows, 64 at once, 200 ms", 6.25, [measure(c, folder) for c in clients])
    rows = [measure(c, folder, n=10_000, concurrency=512) for c in clients]
    lines += show("10,000 rows, 512 at once, 200 ms", 10_000 * 0.2 / 512, rows)
    slow = {"slow": 0.01}
    return lines + show("1% of answers ten times slower", 6.25, [measure(c, folder, faults=slow) for c in clients])


def faults(folder: Path) -> list[str]:
    """Measure with errors; every row must arrive."""
    lines = []
    for title, rates in {
        "5% 429 and 5% 500": {"p429": 0.05, "p500": 0.05},
        "10% 429": {"p429": 0.1},
        "10% 500": {"p500": 0.1},
    }.items():
        lines += show(title, 6.25, [measure(c, folder, faults=rates) for c in ("chat", "bare-aiohttp")])
    rates = {"p429": 0.05, "p500": 0.05, "bad": 0.02}
    return lines + show(
        "generate: 5% 429, 5% 500, 2% broken answers", 6.25, [measure("generate", folder, faults=rates)]
    )


def rate(folder: Path) -> list[str]:
    """Measure against a limit of 6,000 requests a minute, with and without `rpm` of the client."""
    limited = {"rpm": 6_000, "retry_after": 1}
    rows = [measure("chat", folder, faults=limited), measure("chat", folder, faults=limited, llm='{"rpm": 6000}')]
    rows[1]["client"] = "chat, with rpm"
    return show(
        "6,000 requests a minute, Retry-After: 1", 2_000 / 100, [*rows, measure("bare-aiohttp", folder, faults=limited)]
    )


def memory(folder: Path) -> list[str]:
    """Measure peak memory with 2,000 rows and with ten times as many."""
    fast = {"latency": 0.02}
    lines = []
    for client in ("chat", "generate"):
        rows = [measure(client, folder, faults=fast, n=n) for n in (2_000, 20_000)]
        lines += show(f"{client}: 2,000 and 20,000 rows, 20 ms", 20_000 * 0.02 / 64, rows)
    return lines


def generate(folder: Path) -> list[str]:
    """Measure `generate` from the loaded gold to the Dataset."""
    lines = []
    for n, at_once in ((2_000, 64), (6_000, 512)):
        rows = [measure(client, folder, n=n, concurrency=at_once) for client in ("generate", "chat")]
        limit = n * 0.2 / at_once
        lines += show(f"generate and chat, {n:,} calls, {at_once} at once, 200 ms", limit, rows)
        seconds, ratio = rows[0]["after_start_s"], rows[1]["asking_s"] / rows[0]["asking_s"]
        lines += [
            "",
            f"From the loaded gold to the Dataset: {seconds} s, {seconds / limit:.2f} x the limit; while asking "
            f"{n / rows[0]['asking_s']:,.0f} rows a second, {ratio:.2f} of those of chat.",
        ]
        print(lines[-1])
    return lines


def kill(folder: Path, rounds: int = 10) -> list[str]:
    """Kill a run at a random moment, run it again with 10% more rows, and count the answers paid twice."""
    rng, lines = random.Random(0), ["\n### kill -9 at a random moment, then again with 10% more rows\n",
             "| killed after | paid again | in flight at most |", "|---|---|---|"]  # fmt: skip
    for _ in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        at = rng.randint(100, 1_900)
        with server() as url:
            process = start("chat", url, folder)
            while stats(url).get("200", 0) < at:
                time.sleep(rng.uniform(0.001, 0.02))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            again = start("chat", url, folder, n=2_200)
            good = json.loads(again.communicate()[0])["good"]
            assert good == 2_200, good
            lines.append(f"| {at:,} | {stats(url)['paid_again']} | 64 |")
    print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    """Run the parts of the command line."""
    parts = {"speed": speed, "generate": generate, "faults": faults, "rate": rate, "memory": memory, "kill": kill}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="PART", help=", ".join(parts))
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables as Markdown, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for part in args.parts for line in parts[part](Path(folder) / "run")]
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
