"""Cost of Ray compared with one process on the same machine, and whether both write the same rows.

    python benchmarks/cluster.py --sizes 20000 200000 --work FOLDER --out docs/results/cluster.md

Three stages, each a whole process of the command line, without Ray and with `--engine ray --workers 2`:

- `generate` asks `benchmarks/llm_server.py` on loopback, 32 calls at once, 200 ms each. No model stands behind it.
- `correct` reads short notes with a toy encoder whose head is random, so that the figures are of the blocks.
- `audit` compares the same notes with 24 gold notes.

The seconds are wall time, the start of the process and of Ray among them. Numerical work has one thread in each process
(OMP_NUM_THREADS=1), so that two workers can use a second core, which one process does not.

Every finished run is a line of FOLDER/runs.jsonl, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from throughput import server, stats

STAGES, ENGINES = ("generate", "correct", "audit"), ("one process", "ray")
BARS = ((20_000, 1.5), (200_000, 1.15))  # most seconds on Ray, in those of one process
AT_ONCE, LATENCY = 32, 0.2
Run = dict[str, Any]
PAGE = """# Ray beside one process on one machine

Measured by `benchmarks/cluster.py` on {cores}, {days}, with {loads} processes waiting when a run began.
Each figure is the wall time of one run of a whole process of the command line, the start of Ray among it. Numerical
work has one thread in each process; two workers can use a second core, which one process does not.

`generate` asks `benchmarks/llm_server.py` on loopback, {at_once} calls at once, {latency} ms each ({calls}), with a
journal on this disk: no model stands behind the answers. `correct` reads short notes with a toy encoder whose head is
random, and `audit` compares them with 24 gold notes: the figures say what spreading the work costs, not how long an LLM
or a model takes.

{table}

The bars: at most {bars}. "Same rows": a digest of the rows that were written, without the time at which each was made,
and of the audit's figures. The difference holds the start of Ray, the import of the libraries in its workers, and its
end: {alone} s for a process with workers that only import hf_synth. `correct` and `audit` take seconds in one process
here: this is most of their difference.
"""
_NOTHING = """
import sys
from pathlib import Path
from hf_synth.cluster.on_ray import _Worker, running, workers_of
with running(Path(sys.argv[1]), None, int(sys.argv[2])) as ray:
    ray.get([worker.begin.remote() for worker in workers_of(ray, _Worker, int(sys.argv[2]), 0, None)])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000], metavar="ROWS")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder of runs.jsonl and of what the stages write")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here")
    args = parser.parse_args()
    file = args.work / "runs.jsonl"
    args.work.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if not any(run["stage"] == "nothing" for run in known):
        known.append(nothing(args.workers, args.work))
        with file.open("a") as out:
            out.write(json.dumps(known[-1]) + "\n")
    for rows in args.sizes:
        for stage in args.stages:
            for engine in ENGINES:
                if any((run["stage"], run["rows"], run["engine"]) == (stage, rows, engine) for run in known):
                    continue
                known.append(measured(stage, rows, engine, args.workers, args.work))
                with file.open("a") as out:
                    out.write(json.dumps(known[-1]) + "\n")
                print(json.dumps(known[-1]), flush=True)
        shutil.rmtree(args.work / str(rows), ignore_errors=True)
    text = page(known, args.workers)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def measured(stage: str, rows: int, engine: str, workers: int, place: Path) -> Run:
    """Run a stage in a process of its own; return its seconds and a digest of the rows that it wrote."""
    from support.cluster_rows import make_journey

    work = place / str(rows)
    if not work.is_dir():
        work.mkdir(parents=True)
        make_journey(work, rows)
    out = work / f"{stage}-{engine.split()[0]}"
    shutil.rmtree(out, ignore_errors=True)
    inputs = [str(work / "gold"), str(work / "synthetic")]
    command = {
        "generate": ["generate", str(work / "gold"), "--llm", "m", "--n", str(rows), "--concurrency", str(AT_ONCE)],
        "correct": ["correct", *inputs, "--corrector", str(work / "model"), "--split", "validation"],
        "audit": ["audit", *inputs],
    }[stage] + ["--out", str(out), "--quiet"]
    command += ["--method", "posterior"] if stage == "correct" else []
    command += ["--engine", "ray", "--workers", str(workers)] if engine == "ray" else []
    facts: Run = {
        "stage": stage,
        "rows": rows,
        "engine": engine,
        "workers": workers,
        "cores": len(os.sched_getaffinity(0)),
    }
    facts |= {"day": datetime.date.today().isoformat(), "load": round(os.getloadavg()[0], 1)}
    if stage != "generate":
        return facts | timed(command) | {"digest": digest(out)}
    with server(latency=LATENCY) as url:
        journal = ["--base-url", url, "--journal", str(work / f"{engine.split()[0]}.sqlite")]
        return facts | timed([*command, *journal]) | {"calls": stats(url)["requests"], "digest": digest(out)}


def nothing(workers: int, place: Path) -> Run:
    """Run Ray with workers that do nothing; return the seconds of its process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", _NOTHING, place / "ray-alone", str(workers)], check=True)
    return {"stage": "nothing", "engine": "ray", "rows": 0, "seconds": round(time.perf_counter() - begun, 1)}


def timed(command: list[str]) -> Run:
    """Run a verb; return its wall seconds."""
    begun = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "hf_synth.cli", *command], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode not in (0, 1):  # an audit that refuses rows ends with 1
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}")
    return {"seconds": round(time.perf_counter() - begun, 1), "code": ended.returncode}


def digest(out: Path) -> str:
    """Digest the rows of an output without the time at which each was made, and its audit."""
    import pyarrow.parquet as pq

    found = hashlib.sha256()
    for file in sorted(out.glob("*.parquet")):
        table = pq.read_table(file)
        table = table.drop_columns([name for name in ("created",) if name in table.column_names])
        for batch in table.to_batches(10_000):
            found.update(json.dumps(batch.to_pylist(), default=str).encode())
    for file in sorted(out.glob("audit.json")):
        found.update(json.dumps({**json.loads(file.read_text()), "out": "", "synthetic": ""}).encode())
    return found.hexdigest()


def page(runs: list[Run], workers: int) -> str:
    """Return the page of all runs."""
    from hf_synth.reports.page import markdown_table

    found = {(run["stage"], run["rows"], run["engine"]): run for run in runs}
    pairs = [
        (one, found[stage, rows, "ray"])
        for (stage, rows, engine), one in found.items()
        if engine != "ray" and (stage, rows, "ray") in found
    ]
    rows = [
        list(_line(one, ray))
        for one, ray in sorted(pairs, key=lambda pair: (STAGES.index(pair[0]["stage"]), pair[0]["rows"]))
    ]
    head = [
        "stage",
        "rows",
        "one process, s",
        f"Ray, {workers} workers, s",
        "ratio",
        "bar",
        "difference, s",
        "same rows",
    ]
    alone = next(run["seconds"] for run in runs if run["stage"] == "nothing")
    runs = [run for run in runs if run["stage"] != "nothing"]
    days, loads = sorted({run["day"] for run in runs}), [run["load"] for run in runs]
    return PAGE.format(
        cores=" or ".join(f"{n} cores" if n > 1 else "one core" for n in sorted({run["cores"] for run in runs})),
        days=" to ".join(dict.fromkeys((days[0], days[-1]))),
        loads=f"{min(loads):.1f} to {max(loads):.1f}",
        at_once=AT_ONCE,
        latency=f"{LATENCY * 1000:.0f}",
        calls="; ".join(sorted({f"{r['calls']:,} for {r['rows']:,} notes" for r in runs if r.get("calls")})),
        table=markdown_table(head, rows),
        alone=alone,
        bars=" and ".join(f"{bar} x at {n:,} rows" for n, bar in BARS),
    )


def _line(one: Run, ray: Run) -> Iterator[str]:
    """Yield the cells of a line: a stage in one process and on Ray."""
    ratio, bar = ray["seconds"] / one["seconds"], dict(BARS).get(one["rows"])
    yield from (one["stage"], f"{one['rows']:,}", f"{one['seconds']:.1f}", f"{ray['seconds']:.1f}", f"{ratio:.2f}")
    yield "" if bar is None else f"{bar} ({'held' if ratio <= bar else 'missed'})"
    yield f"{ray['seconds'] - one['seconds']:+.1f}"
    yield "yes" if (one["digest"], one["code"]) == (ray["digest"], ray["code"]) else "no"


if __name__ == "__main__":
    main()
