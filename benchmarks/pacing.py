"""Requests in flight without a setting, compared with every fixed number, on servers that slow down or refuse.

    python benchmarks/pacing.py [--n 2400] [--out docs/results/pacing.md]

The servers are `benchmarks/llm_server.py` on loopback, with no model behind them. Some work on so many requests at once
and let the others wait, as vLLM does; some refuse with 429. Each figure is the time from the first request to the last
answer of `LLM.chat`, journal on; compare the figures of one table only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from throughput import measure

FIXED = (32, 64, 128, 256)
SERVERS: dict[str, dict[str, Any]] = {
    "64 at once, then a queue": {"slots": 64},
    "64 at once, then a queue; every answer slower the more there are": {"slots": 64, "batching": 1.0},
    "16 at once, then a queue": {"slots": 16, "latency": 0.05},
    "200 at once, then a queue": {"slots": 200},
    "10% of requests refused (429)": {"p429": 0.1},
    "6,000 requests a minute, Retry-After: 1": {"rpm": 6_000, "retry_after": 1},
}  # fmt: skip


def table(n: int, folder: Path) -> list[str]:
    """Measure all servers and return the lines of a table."""
    head = [*(f"{c} fixed, s" for c in FIXED), "none given, s", "best fixed / none", "64 fixed / none"]
    lines = [f"| server | {' | '.join(head)} |"]
    lines.append("|---" * (len(FIXED) + 4) + "|")
    print("\n".join(lines), flush=True)
    for name, options in SERVERS.items():
        calls = n if "rpm" not in options else n // 4
        seconds = [measure("chat", folder, faults=options, n=calls, concurrency=c)["asking_s"] for c in FIXED]
        learnt = measure("chat", folder, faults=options, n=calls, concurrency=0)["asking_s"]
        cells = [f"{s:.2f}" for s in (*seconds, learnt)]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {min(seconds) / learnt:.2f} | {seconds[FIXED.index(64)] / learnt:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2_400, help="questions to each server")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a page whose table is replaced")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = table(args.n, Path(folder) / "run")
    if args.out:
        head = args.out.read_text(encoding="utf-8").partition("| server |")[0] if args.out.exists() else ""
        args.out.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
