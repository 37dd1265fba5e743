"""Time, private memory and disk of each stage by number of rows.

    python benchmarks/scaling.py --sizes 1000 10000 100000 1000000 --work FOLDER [--stages adopt correct ...]
                                 [--page docs/results/scaling.md]

Rows are artificial: 1,000 characters of words drawn from a vocabulary of 20,000 by a power law, with words of their
label among them; 4 labels, 30% of the LLM's labels wrong, 200 gold rows. The corrector's probabilities are given, so
that the figures are those of the stages alone. Each stage reads the folder of the stage before it and writes its own,
as the command line does, in a process of its own with one thread for numerical work. The start of the process is not in
the seconds; libraries that a stage imports when it needs them are, some 3 s where scikit-learn is one of them.

Memory is private memory (RssAnon) of the whole process at its peak, start-up and imports among it; the parent process
reads it every 10 ms. Pages of mapped files are not in it, since the system can drop them.

Every finished stage is a line of FOLDER/runs.jsonl, and a second call goes on from there. What a size has written is
deleted when its stages are done, unless --keep is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

NEEDS = {
    "adopt": (), "correct": ("adopt",), "auto": ("adopt",), "augment": ("correct",), "audit": ("correct",),
    "export": ("correct",), "evaluate": (),
}  # fmt: skip
LABELS, GOLD, CHARACTERS = ("a", "b", "c", "d"), 200, 1_000
DISK_A_ROW = 10_000  # bytes of disk that a size needs at its largest, with some to spare
INTERVAL = 0.01  # seconds between two looks at the memory
FILE = Path(__file__).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=(1_000, 10_000, 100_000))
    parser.add_argument("--stages", nargs="+", choices=NEEDS, default=tuple(NEEDS))
    parser.add_argument("--work", type=Path, required=True, help="folder of runs.jsonl and of what stages write")
    parser.add_argument("--page", type=Path, help="write the page here, and its two plots beside it")
    parser.add_argument("--keep", action="store_true", help="keep what the stages write")
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.work, args.one[0], int(args.one[1]))))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for n in sorted(args.sizes):
        run_size(args.work, n, args.stages, keep=args.keep)
    text, plots = page(runs_of(args.work))
    print(text)
    if args.page:
        args.page.write_text(text + "\n", encoding="utf-8")
        for name, svg in plots.items():
            (args.page.parent / name).write_text(svg, encoding="utf-8")


def runs_of(work: Path) -> list[dict[str, Any]]:
    """Read the finished stages; a line that a kill cut short is none."""
    file, runs = work / "runs.jsonl", []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def run_size(work: Path, n: int, stages: Any, *, keep: bool) -> None:
    """Run the stages of one size that are not measured yet, and those whose folders they need."""
    done = {r["stage"] for r in runs_of(work) if r["rows"] == n}
    missing = [stage for stage in NEEDS if stage in stages and stage not in done]
    if not missing:
        return
    folder = work / str(n)
    if not folder.exists() and shutil.disk_usage(work).free < n * DISK_A_ROW:
        raise SystemExit(f"{n:,} rows need {n * DISK_A_ROW / 1e9:.1f} GB of disk in {work}, and less is free")
    if not (folder / "pool").exists():
        write_pool(folder, n)
    for stage in missing:
        for needed in (*(more for name in NEEDS[stage] for more in (*NEEDS[name], name)), stage):
            if needed == stage or not (folder / needed).exists():
                run = in_process(work, needed, n)
                if needed not in done:
                    done.add(needed)
                    keep_run(work / "runs.jsonl", run)
    if not keep:
        shutil.rmtree(folder)


def keep_run(file: Path, run: dict[str, Any]) -> None:
    begun = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as out:
        out.write(("\n" if begun else "") + json.dumps(run) + "\n")
    print(f"{run['stage']:8} {run['rows']:>9,} rows {run['cpu']:8.1f} CPU s {run['peak']:7,.0f} MB", flush=True)


def in_process(work: Path, stage: str, n: int) -> dict[str, Any]:
    """Run one stage in a new process; return its figures with the peak of its private memory, and the disk used."""
    command = [sys.executable, str(FILE), "--work", str(work), "--one", stage, str(n)]
    with tempfile.TemporaryDirectory(prefix="cache-", dir=work) as cache:
        own = dict.fromkeys(("HF_HOME", "HF_DATASETS_CACHE", "TMPDIR"), cache)
        own |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=told, stderr=errors, env=os.environ | own)
            peak = 0.0
            try:
                while process.poll() is None:
                    peak = max(peak, private_mb(process.pid))
                    time.sleep(INTERVAL)
            finally:
                process.kill()
            told.seek(0)
            errors.seek(0)
            if process.returncode:
                raise SystemExit(f"{stage} of {n:,} rows ended with {process.returncode}:\n{errors.read()[-2_000:]}")
            run: dict[str, Any] = json.loads(told.read().splitlines()[-1])
        disk = disk_mb(Path(cache)) + disk_mb(work / str(n))
    return run | {"peak": max(peak, run["before"]), "disk": disk}


def private_mb(pid: int) -> float:
    """Return the private memory of a process in MB, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0) / 1024


def disk_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def write_pool(folder: Path, n: int) -> None:
    """Write n rows as someone else might have made them, n probabilities of a corrector, and gold."""
    import datasets
    from datasets import Dataset

    datasets.disable_progress_bars()
    rng = np.random.default_rng(0)
    words = np.array([f"{'bcdfghjklm'[i % 10]}{'aeiou'[i % 5]}{i:x}" for i in range(20_000)])
    topics = [rng.permutation(20_000)[:300] for _ in LABELS]
    truth = rng.integers(0, len(LABELS), n + GOLD)
    meant = np.where(rng.random(n + GOLD) < 0.3, rng.integers(0, len(LABELS), n + GOLD), truth)

    def text(label: int) -> str:
        of_all, of_label = (rng.zipf(1.2, 140) - 1) % 20_000, topics[label][rng.integers(0, 300, 20)]
        return " ".join(words[rng.permutation(np.r_[of_all, of_label])])[:CHARACTERS]

    def rows(begin: int, end: int) -> Any:
        for i in range(begin, end):
            yield {"id": f"s{i}", "text": text(int(truth[i])), "llm_label": LABELS[meant[i]]}

    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, begin, end in (("pool", 0, n), ("gold", n, n + GOLD)):
        made = Dataset.from_generator(
            rows, gen_kwargs={"begin": begin, "end": end}, cache_dir=str(draft / "cache"), keep_in_memory=False
        )
        made.save_to_disk(str(draft / name))
        del made
        shutil.rmtree(draft / "cache")
    probs = rng.dirichlet(np.full(len(LABELS), 0.5), n + GOLD)
    probs[np.arange(n + GOLD), truth] += 2 * (rng.random(n + GOLD) < 0.8)
    np.savez(draft / "known.npz", truth=truth, probs=(probs / probs.sum(1, keepdims=True)).astype(np.float32))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def measured(work: Path, stage: str, n: int) -> dict[str, Any]:
    """Run one stage; return its CPU and wall seconds, and the private memory before it."""
    import datasets
    from datasets import Dataset

    from hf_synth.task.task import Task

    datasets.disable_progress_bars()
    task = Task.from_columns("notes", text_columns="text", label_column="label", labels=LABELS, access="open")
    folder, known = work / str(n), np.load(work / str(n) / "known.npz")
    truth, probs = known["truth"], known["probs"]
    texts = Dataset.load_from_disk(str(folder / "gold"))["text"][:]
    made = [task.gold_row(f"g{i}", None, int(truth[n + i]), text) for i, text in enumerate(texts)]
    gold = Dataset.from_list(made, features=task.gold_features())
    run = work_of(stage, task, folder, gold, truth[:n], (probs[:n], probs[n:]))
    before, began, wall = private_mb(os.getpid()), cpu_seconds(), time.perf_counter()
    more = run()
    wall, spent = time.perf_counter() - wall, cpu_seconds() - began
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return {"stage": stage, "rows": n, "cpu": spent, "wall": wall, "before": before, "date": date, **(more or {})}


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the processes that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def work_of(
    stage: str, task: Any, folder: Path, gold: Any, truth: Any, probs: tuple[Any, Any]
) -> Callable[[], dict[str, Any] | None]:
    """Return a function that reads the rows of a stage, works on them, and writes its folder."""
    from datasets import Dataset

    from hf_synth.correction.augmentation import augment
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.methods import CorrectionOptions
    from hf_synth.evaluation.evaluation import score
    from hf_synth.gold.adoption import adopt, read_dataset
    from hf_synth.privacy.audit import audit
    from hf_synth.publishing.export import dataset_views, view_rows
    from hf_synth.task.folders import write_parquet, write_stage

    of_rows, of_gold = probs

    class Given:
        """A judge whose probabilities are known; those of gold are asked for by the number of its rows."""

        def predict(self, asked: Any) -> Any:
            return of_gold if len(asked) == GOLD else of_rows

    def written(rows: Any) -> None:
        write_stage(task, rows, folder / stage, stage=stage)

    def corrected() -> Any:
        return read_dataset(folder / "correct")

    def correct(method: str) -> dict[str, Any]:
        asked = read_dataset(folder / "adopt")
        rows, policy = correct_with_policy(task, asked, Given(), gold=gold, options=CorrectionOptions(method))
        written(rows)
        return {"method": policy.method}

    def export() -> None:
        rows = corrected()
        names = [f"x{i}" for i in range(len(rows))]
        views = dataset_views(task, rows, view_rows(task, rows, ()), "open", names)
        (folder / stage).mkdir(exist_ok=True)
        for name, view in views.items():
            write_parquet(task, view, folder / stage / f"{name}.parquet", "open")

    def evaluate() -> None:
        score(task, of_rows, truth)

    works: dict[str, Callable[[], dict[str, Any] | None]] = {
        "adopt": lambda: written(adopt(task, Dataset.load_from_disk(str(folder / "pool")), access="open")),
        "correct": lambda: correct("argmax"),
        "auto": lambda: correct("auto"),
        "augment": lambda: written(augment(task, corrected(), gold=gold)),
        "audit": lambda: (audit(task, corrected(), gold=gold), None)[1],
        "export": export,
        "evaluate": evaluate,
    }
    return works[stage]


# --- the page --------------------------------------------------------------------------------------------------------
def slope(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return by which power of the rows the CPU seconds grow from one size to the next; 1 is linear."""
    return math.log(second["cpu"] / max(first["cpu"], 0.01)) / math.log(second["rows"] / first["rows"])


def page(runs: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """Return the page, and its plots by file name."""
    from hf_synth.reports.page import markdown_table
    from hf_synth.reports.plots import Reference, Series, curve_plot

    sizes = sorted({r["rows"] for r in runs})
    found = {(r["stage"], r["rows"]): r for r in runs}
    stages = [stage for stage in NEEDS if any((stage, n) in found for n in sizes)]

    def table(value: Callable[[dict[str, Any]], str]) -> str:
        rows = [[stage, *(value(found[stage, n]) if (stage, n) in found else "" for n in sizes)] for stage in stages]
        return markdown_table(["stage", *(f"{n:,} rows" for n in sizes)], rows)

    def slopes() -> str:
        steps = list(itertools.pairwise(sizes))
        rows = []
        for stage in stages:
            both = [(found.get((stage, a)), found.get((stage, b))) for a, b in steps]
            rows.append([stage, *(f"{slope(a, b):.2f}" if a and b else "" for a, b in both)])
        return markdown_table(["stage", *(f"{a:,} to {b:,}" for a, b in steps)], rows)

    def curves(value: Callable[[dict[str, Any]], float]) -> list[Any]:
        return [Series(s, [(n, value(found[s, n])) for n in sizes if (s, n) in found]) for s in stages]

    note = "Artificial rows of 1,000 characters; probabilities given"
    plots = {
        "scaling_time.svg": curve_plot(
            curves(lambda r: 1e6 * r["cpu"] / r["rows"]), title="CPU time a row: what is flat or falls is linear",
            x_axis="rows", y_axis="CPU microseconds a row", log_x=True, caption=note, simulated=note,
        ),
        "scaling_memory.svg": curve_plot(
            curves(lambda r: r["peak"]), title="Private memory at its peak, imports among it",
            x_axis="rows", y_axis="MB", log_x=True, caption=note, simulated=note,
            lines=[Reference("1 GB", 1_000)],
        ),
    }  # fmt: skip
    about = [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[2:4]]
    dates = sorted({r["date"] for r in runs})
    when = f"Measured by `benchmarks/scaling.py` on {' and '.join(dict.fromkeys((dates[0], dates[-1])))}."
    chosen = sorted({r["method"] for r in runs if r["stage"] == "auto"})
    parts = [
        "# Time and memory by number of rows", when, *about,
        "## CPU seconds", table(lambda r: f"{r['cpu']:.1f}"),
        "## CPU microseconds a row", table(lambda r: f"{1e6 * r['cpu'] / r['rows']:,.0f}"),
        "![CPU microseconds a row by number of rows, a curve for each stage](scaling_time.svg)",
        "## Growth of CPU seconds", "The power of the number of rows by which the CPU seconds grow; 1 is linear. What "
        "is done once, whatever the number of rows, keeps it below 1 at small sizes.", slopes(),
        "## Private memory, MB at the peak", table(lambda r: f"{r['peak']:,.0f}"),
        "Of these, before the stage began:", table(lambda r: f"{r['before']:,.0f}"),
        "![Private memory by number of rows, a curve for each stage](scaling_memory.svg)",
        "## Seconds", "Wall time; other work on the machine lengthens it.", table(lambda r: f"{r['wall']:.1f}"),
        "## Disk, MB", "What this size takes when the stage has ended, its own temporary files among it.",
        table(lambda r: f"{r['disk']:,.0f}"),
    ]  # fmt: skip
    if chosen:
        parts.append(f"`auto` chose {' and '.join(chosen)}.")
    return "\n\n".join(parts), plots


if __name__ == "__main__":
    main()
