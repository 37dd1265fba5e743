"""Time and private memory of the stages by number of rows.

    python benchmarks/scaling.py --sizes 1000 10000 100000 1000000 --out out [--stages adopt correct ...]

Rows are artificial: 1,000 characters of words drawn from a vocabulary of 20,000 by a power law, with words of their
label among them; 4 labels, 30% of the LLM's labels wrong, 200 gold rows. The corrector's probabilities are given, so
that the figures are those of the stages alone. Each stage and size runs in a process of its own, which reads the rows
of the stage before it from files. Runs are kept in out/runs.jsonl: a second call goes on.

Memory is private memory (RssAnon) above that before the stage: pages of mapped files are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("adopt", "correct", "auto", "augment", "audit", "export", "evaluate")
LABELS, GOLD, CHARACTERS = ("a", "b", "c", "d"), 200, 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=(1_000, 10_000, 100_000))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.out, args.one[0], int(args.one[1]))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "runs.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for n in args.sizes:
        if not (args.out / f"pool-{n}").exists():
            write_pool(args.out / f"pool-{n}", n)
        for stage in args.stages:
            if any((r["stage"], r["rows"]) == (stage, n) for r in done):
                continue
            command = [sys.executable, __file__, "--out", str(args.out), "--one", stage, str(n)]
            ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if ran.returncode:
                raise SystemExit(ran.stderr[-2_000:])
            done.append(json.loads(ran.stdout.splitlines()[-1]))
            with file.open("a") as out:
                out.write(json.dumps(done[-1]) + "\n")
            print(done[-1], flush=True)
    text = page(done)
    (args.out / "scaling.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def page(runs: list[dict[str, Any]]) -> str:
    from hf_synth.reports.page import markdown_table

    sizes = sorted({r["rows"] for r in runs})
    found = {(r["stage"], r["rows"]): r for r in runs}
    stages = [s for s in STAGES if any(s == stage for stage, _ in found)]

    def table(value: Any) -> str:
        rows = [[stage, *(value(found[stage, n]) if (stage, n) in found else "" for n in sizes)] for stage in stages]
        return markdown_table(["stage", *(f"{n:,} rows" for n in sizes)], rows)

    return "\n\n".join([
        "# Time and memory by number of rows", "Measured by `benchmarks/scaling.py`. " + ABOUT,
        "CPU seconds:", table(lambda r: f"{r['cpu']:.1f}"),
        "Microseconds of CPU a row:", table(lambda r: f"{1e6 * r['cpu'] / r['rows']:,.0f}"),
        "Private memory above that before the stage, MB at its peak:", table(lambda r: f"{r['anon']:,.0f}"),
    ])  # fmt: skip


ABOUT = " ".join(__doc__.split("\n\n")[2].split()) + " " + " ".join(__doc__.split("\n\n")[3].split())


def write_pool(folder: Path, n: int) -> None:
    from datasets import Dataset

    rng = np.random.default_rng(0)
    words = np.array([f"{'bcdfghjklm'[i % 10]}{'aeiou'[i % 5]}{i:x}" for i in range(20_000)])
    topics = [rng.permutation(20_000)[:300] for _ in LABELS]

    def text(label: int) -> str:
        of_all, of_label = (rng.zipf(1.2, 140) - 1) % 20_000, topics[label][rng.integers(0, 300, 20)]
        return " ".join(words[rng.permutation(np.r_[of_all, of_label])])[:CHARACTERS]

    def rows() -> Any:
        for i in range(n + GOLD):
            true, wrong = rng.integers(0, len(LABELS)), rng.random() < 0.3
            meant = rng.integers(0, len(LABELS)) if wrong else true
            yield {"id": f"s{i}", "text": text(int(true)), "true": int(true), "llm_label": LABELS[meant]}

    Dataset.from_generator(rows, cache_dir=str(folder) + "-cache").save_to_disk(str(folder))


def measured(out: Path, stage: str, n: int) -> dict[str, Any]:
    """Run one stage; return its CPU seconds and the peak of private memory."""
    import datasets
    from datasets import Dataset

    from hf_synth.task.task import Task

    datasets.disable_progress_bars()
    task = Task.from_columns("notes", text_columns="text", label_column="label", labels=LABELS, access="open")
    pool = Dataset.load_from_disk(str(out / f"pool-{n}"))
    made = [task.gold_row(f"g{r['id']}", None, r["true"], r["text"]) for r in pool.select(range(n, n + GOLD))]
    gold, truth = Dataset.from_list(made, features=task.gold_features()), np.array(pool["true"][:n])
    kept = {name: out / f"{name}-{n}" for name in ("adopt", "correct")}
    run = work_of(stage, task, pool.select(range(n)), gold, truth, kept)
    before, peak, over = private_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], private_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, wall = time.process_time(), time.perf_counter()
    rows = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    over.set()
    watcher.join()
    if stage in kept and not kept[stage].exists():
        rows.save_to_disk(str(kept[stage]))
    return {"stage": stage, "rows": n, "cpu": cpu, "wall": wall, "anon": max(peak[0], private_mb()) - before}


def work_of(stage: str, task: Any, pool: Any, gold: Any, truth: Any, kept: dict[str, Path]) -> Any:
    """Return a function that runs a stage on rows read from files."""
    from datasets import Dataset

    from hf_synth.correction.augmentation import augment
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.evaluation.evaluation import score
    from hf_synth.gold.adoption import adopt
    from hf_synth.privacy.audit import audit
    from hf_synth.publishing.export import dataset_views, view_rows
    from hf_synth.task.folders import write_parquet

    def rows(name: str) -> Any:
        return Dataset.load_from_disk(str(kept[name]))

    def probabilities(labels: Any) -> Any:
        rng = np.random.default_rng(5)
        probs = rng.dirichlet(np.full(len(LABELS), 0.5), len(labels))
        probs[np.arange(len(labels)), labels] += 2 * (rng.random(len(labels)) < 0.8)
        return probs / probs.sum(1, keepdims=True)

    class Given:
        def predict(self, asked: Any) -> Any:
            return probabilities(gold["label"][:] if len(asked) == GOLD else truth)

    if stage == "adopt":
        return lambda: adopt(task, pool, access="open")
    if stage in ("correct", "auto"):
        asked, method = rows("adopt"), "argmax" if stage == "correct" else "auto"
        return lambda: correct_with_policy(task, asked, Given(), gold=gold, method=method)[0]
    if stage == "evaluate":
        probs = probabilities(truth).astype(np.float32)
        return lambda: score(task, probs, truth)
    corrected = rows("correct")
    if stage == "augment":
        return lambda: augment(task, corrected, gold=gold)
    if stage == "audit":
        return lambda: audit(task, corrected, gold=gold)

    def export() -> None:
        names = [f"x{i}" for i in range(len(corrected))]
        views = dataset_views(task, corrected, view_rows(task, corrected, ()), "open", names)
        for name, view in views.items():
            write_parquet(task, view, Path(f"{kept['correct']}-{name}.parquet"), "open")

    return export


def private_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


if __name__ == "__main__":
    main()
