"""How fast a table of one's own becomes gold, beside a plain loop over `csv.reader`, and how much memory it takes.

    python benchmarks/reading.py               # CSV of 100 MB, the same as JSONL and parquet; about a minute
    python benchmarks/reading.py --mb 10       # smaller files

Each file is read in a process of its own. Figures are CPU seconds of that process (user and system, one thread does
the work), so that other work on the machine counts little. Two machines are compared by the ratio to the plain loop
over the same CSV in the same run. Memory is the peak of anonymous memory above that before reading (Linux only). The
texts are words at random: nothing in the files is a note.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from hf_synth.reports.page import markdown_table

WORDS = [f"{a}{b}" for a in ("lan", "mor", "tes", "ri", "vo", "ka", "pel", "su") for b in ("ter", "na", "lo", "dim")]
LABELS = ("low", "middle", "high")
COLUMNS = {"text_columns": ["note"], "label_column": "urgency", "group_column": "patient"}
ACTS = {
    "csv.reader": ["csv"],
    "task_from_table": ["csv", "jsonl", "parquet"],
    "load_gold": ["csv", "jsonl", "parquet"],
    "adopt": ["csv"],
}


def write(folder: Path, megabytes: float) -> None:
    """Write the same rows as CSV, JSONL and parquet: notes of about 1,000 characters, four of each patient."""
    from datasets import Dataset

    rng = random.Random(0)
    rows = [
        {"patient": f"p{i // 4}", "note": " ".join(rng.choices(WORDS, k=180)), "urgency": LABELS[i % 3]}
        for i in range(int(megabytes * 1_000))
    ]
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with (folder / "notes.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).to_parquet(folder / "notes.parquet")


def act(name: str, path: Path) -> int:
    """Read a file once, and return how many rows it has."""
    if name == "csv.reader":
        with path.open(newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    from hf_synth import Task, adopt, load_gold
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.gold.own_table import task_from_table

    task = Task.from_columns("triage", labels=LABELS, **COLUMNS)
    if name == "task_from_table":
        return len(task_from_table(path, **COLUMNS).labels)
    if name == "adopt":
        return len(adopt(task, read_dataset(path), llm_label_column="urgency"))
    return sum(map(len, load_gold(task, path).values()))


def anonymous_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1_024


def measure(name: str, path: Path) -> dict[str, float]:
    """Read a small file first, so that imports do not count; then the file itself."""
    small = path.parent / "small" / path.name
    act(name, small)
    peak, done = [anonymous_mb()], threading.Event()
    before = peak[0]

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    act(name, path)
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "above": max(peak) - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mb", type=float, default=100, help="megabytes of the CSV file")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the fastest counts")
    parser.add_argument("--acts", nargs="+", choices=list(ACTS), default=list(ACTS), help="what is measured")
    parser.add_argument("--read", nargs=2, metavar=("ACT", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(measure(args.read[0], Path(args.read[1]))))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "small").mkdir()
        write(folder / "small", 0.1)
        write(folder, args.mb)
        lines = []
        plain = 0.0
        for name in dict.fromkeys(["csv.reader", *args.acts]):
            for suffix in ACTS[name]:
                path = folder / f"notes.{suffix}"
                runs = []
                for _ in range(args.runs):
                    shutil.rmtree(folder / ".hf_synth", ignore_errors=True)  # the cache of an earlier run
                    words = [sys.executable, __file__, "--read", name, str(path)]
                    runs.append(json.loads(subprocess.run(words, check=True, capture_output=True).stdout))
                best = min(runs, key=lambda run: run["seconds"])
                speed = path.stat().st_size / 1e6 / best["seconds"]
                plain = plain or speed
                of_csv = (folder / "notes.csv").stat().st_size / 1e6 / best["seconds"] / plain
                lines.append([name, suffix, f"{speed:.0f}", f"{of_csv:.2f}", f"{best['above']:.0f}"])
        size = (folder / "notes.csv").stat().st_size / 1e6
        print(f"CSV of {size:.0f} MB, {int(args.mb * 1_000):,} rows, fastest of {args.runs} runs:\n")
        print(markdown_table(["what", "file", "MB/s of CPU time", "rows/s against csv.reader", "above, MB"], lines))


if __name__ == "__main__":
    main()
