"""CPU time of correction of many rows with a linear head.

    python benchmarks/correction_speed.py [--rows 100000] [--auto-rows 20000] [--out docs/results/correction_speed.md]

Features are simulated (300 numbers, 8 labels, 400 gold rows, 30% of the labels wrong). CPU seconds of one thread with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from hf_synth.correction.choice import choose_method
from hf_synth.correction.crossfit import Rows, decide
from hf_synth.models import linear
from hf_synth.reports.page import markdown_table

LABELS, WIDTH, GOLD, RIGHT = 8, 300, 400, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--auto-rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = []
    for name, n in (("posterior", args.rows), ("auto", args.auto_rows)):
        truth, rows, learn = problem(n)
        began = time.process_time()
        method = name if name != "auto" else choose_method(rows, learn).method
        corrected = decide(rows, learn, method)[1]
        seconds = time.process_time() - began
        lines.append([name, method, f"{n:,}", f"{seconds:.1f}", f"{np.mean(corrected.label == truth):.4f}"])
    head = ["policy", "method", "rows", "CPU seconds", "right labels"]
    text = markdown_table(head, lines)
    print(text)
    if args.out:
        about = __doc__.split("\n\n")[2].replace("\n", " ").strip()
        command = "`python benchmarks/correction_speed.py`"
        page = "\n\n".join(["# Correction of many rows: CPU time", about, command, text])
        args.out.write_text(page + "\n", encoding="utf-8")


def problem(n: int) -> tuple[np.ndarray, Rows, object]:
    rng = np.random.default_rng(0)
    truth, gold = rng.integers(0, LABELS, n), rng.integers(0, LABELS, GOLD)
    meant = np.where(rng.random(n) < RIGHT, truth, (truth + rng.integers(1, LABELS, n)) % LABELS)
    centres = rng.normal(size=(LABELS, WIDTH)) * 0.07

    x_gold, x_rows = features_of(gold, centres, rng), features_of(truth, centres, rng)
    return truth, Rows(meant, gold, None, LABELS, {}), linear.linear_learner(x_gold, x_rows, gold, LABELS)


def features_of(labels: np.ndarray, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw features of unit length (N, D) around the centre of each row's label; centres are (K, D)."""
    x = centres[labels] + rng.normal(size=(len(labels), centres.shape[1])) * 0.5
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
