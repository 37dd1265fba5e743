"""What soft targets cost: policies on many rows, each row read once whatever its target, beside a row for each label.

    python benchmarks/correction_speed.py [--rows 100000] [--auto-rows 20000] [--out docs/results/correction_speed.md]

Features are simulated (300 numbers, 8 labels, 400 gold rows, 30% of the labels wrong). Both ways run in this process,
one after the other, on the same rows; CPU seconds of one thread where OMP_NUM_THREADS=1. Up to `frozen._MANY` training
rows there is only the second way; here it is forced for the comparison.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from hf_synth.correction.choice import choose_method
from hf_synth.correction.crossfit import Rows, decide
from hf_synth.correction.policy import Corrected
from hf_synth.models import linear as frozen
from hf_synth.reports.page import markdown_table

LABELS, WIDTH, GOLD, RIGHT = 8, 300, 400, 0.7
METHODS = ("none", "clean_drop", "posterior")  # that `auto` chooses among here: all of them take half an hour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--auto-rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    many = frozen._MANY
    lines = []
    for name, n in (("posterior", args.rows), ("auto", args.auto_rows)):
        truth, rows, learn = problem(n)
        found = []
        for least in (10**12, many):  # a row for each label; each row once
            frozen._MANY = least
            began = time.process_time()
            method = name if name != "auto" else choose_method(rows, learn, methods=METHODS).method
            done = decide(rows, learn, method)[1]
            found.append((time.process_time() - began, done))
        (slow, before), (fast, after) = found
        lines.append(
            [name, f"{n:,}", f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.1f} x", *compared(before, after, truth)]
        )
    head = ["policy", "rows", "a row for each label, s", "each row once, s", "gain", "labels alike",
            "most a probability moves", "right before", "right after"]  # fmt: skip
    text = markdown_table(head, lines)
    print(text)
    if args.out:
        about = __doc__.split("\n\n")[2].replace("\n", " ").strip()
        made = f"`python benchmarks/correction_speed.py`; `auto` among {', '.join(METHODS)}."
        args.out.write_text(
            "\n\n".join(["# Correction of many rows, measured", about, made, text]) + "\n", encoding="utf-8"
        )


def problem(n: int) -> tuple[np.ndarray, Rows, object]:
    rng = np.random.default_rng(0)
    truth, gold = rng.integers(0, LABELS, n), rng.integers(0, LABELS, GOLD)
    meant = np.where(rng.random(n) < RIGHT, truth, (truth + rng.integers(1, LABELS, n)) % LABELS)
    centres = rng.normal(size=(LABELS, WIDTH)) * 0.07

    def features(labels: np.ndarray) -> np.ndarray:
        x = centres[labels] + rng.normal(size=(len(labels), WIDTH)) * 0.5
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    x_gold, x_rows = features(gold), features(truth)
    return truth, Rows(meant, gold, None, LABELS, {}), frozen.linear_learner(x_gold, x_rows, gold, LABELS)


def compared(before: Corrected, after: Corrected, truth: np.ndarray) -> list[str]:
    moved = np.abs(before.probs * before.weight[:, None] - after.probs * after.weight[:, None]).max()
    right = [f"{np.mean(done.label == truth):.4f}" for done in (before, after)]
    return [f"{np.mean(before.label == after.label):.5f}", f"{moved:.4f}", *right]


if __name__ == "__main__":
    main()
