"""Estimates of the generator's accuracy without audited rows, compared with its true accuracy in a simulation.

    python benchmarks/generator_accuracy.py --seeds 5 [--out docs/results/generator_accuracy.md]

Gold is from the artificial clinic (patients drawn at random, labels as they come). Synthetic rows are of three kinds:
the simulator's, whose errors depend on the text (most often in borderline cases, in its own style, with equally
frequent grades); and the clinic's own notes of other patients, whose labels are made wrong at random, or to one fixed
other label, in 30% of the rows, as in `correction_grid.py`. The estimate from both opinions
(`generator_accuracy_estimated`) is printed only beside a range of at most .3. It is compared with the estimate from
agreement and the corrector's accuracy alone (errors uniform and independent), and with the range without independence
(`generator_accuracy_bounds`). The corrector is a linear head on frozen features.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path

import numpy as np

from hf_synth.correction.crossfit import Rows, decide
from hf_synth.correction.policy import Policy
from hf_synth.demo.clinic import write_notes
from hf_synth.demo.simulator import write
from hf_synth.models.linear import linear_learner, text_features
from hf_synth.reports.page import markdown_table

KINDS, SIZES, METHODS, GRADES = ("simulator", "random", "fixed"), (50, 200, 800), ("argmax", "posterior"), 4
ROWS, WRONG, NOTES = 800, 0.3, 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = defaultdict(list)
    for kind in KINDS:
        for size in SIZES:
            for seed in range(args.seeds):
                for method, figures in one(kind, size, seed).items():
                    runs[kind, size, method].append(figures)
    lines = [line(name, figures) for name, figures in runs.items()]
    head = ["errors", "gold", "corrector trained on", "truth", "estimated", "printed in", "from agreement", "bounds"]
    head += ["truth inside", "no bounds"]
    text = markdown_table(head, lines)
    print(text)
    if args.out:
        about = __doc__.split("\n\n")[2].replace("\n", " ").strip()
        command = "`python benchmarks/generator_accuracy.py`; notes and errors are simulated"
        means = f"Means over {args.seeds} seeds ({command})."
        title = "# The generator's accuracy without audited rows"
        args.out.write_text("\n\n".join([title, about, means, text]) + "\n", encoding="utf-8")


def one(kind: str, size: int, seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng([seed, size])
    notes = write_notes(NOTES, seed=seed)
    patients = sorted({note.patient_id for note in notes})
    place = dict(zip(patients, rng.permutation(len(patients)), strict=True))
    order = sorted(range(len(notes)), key=lambda i: place[notes[i].patient_id])
    gold = [notes[i] for i in order[:size]]
    if kind == "simulator":
        writer = random.Random(f"{seed}")
        meant = np.arange(ROWS) % GRADES
        texts, stated = zip(*(write(writer, int(grade)) for grade in meant), strict=True)
        truth = np.array(stated)
    else:
        others = [notes[i] for i in order[-ROWS:]]
        texts, truth = tuple(note.text for note in others), np.array([note.grade for note in others])
        away = rng.integers(1, GRADES, ROWS) if kind == "random" else 1
        meant = np.where(rng.random(ROWS) < WRONG, (truth + away) % GRADES, truth)
    labels = np.array([note.grade for note in gold])
    x_gold, x_rows = text_features([note.text for note in gold], list(texts))
    rows = Rows(meant, labels, [note.patient_id for note in gold], GRADES, {})
    learn = linear_learner(x_gold, x_rows, labels, GRADES)
    right = float(np.mean(meant == truth))
    return {method: estimates(decide(rows, learn, method, seed=seed)[0], right) for method in METHODS}


def estimates(policy: Policy, right: float) -> dict[str, float]:
    figures = policy.figures
    agree, corrector = figures["corrector_agrees_with_generator"], figures["corrector_accuracy_on_held_out_gold"]
    chance = (1 - corrector) / (GRADES - 1)  # probability that a wrong corrector names a certain wrong label
    simple = (agree - chance) / (corrector - chance) if corrector > chance else np.nan
    low, high = figures.get("generator_accuracy_bounds", (np.nan, np.nan))
    return {
        "truth": right,
        "estimated": figures.get("generator_accuracy_estimated", np.nan),
        "simple": min(1.0, max(0.0, simple)),
        "low": low,
        "high": high,
        "inside": float(low <= right <= high) if np.isfinite(low) else np.nan,
    }


def line(name: tuple[str, int, str], figures: list[dict[str, float]]) -> list[object]:
    kind, size, method = name
    some = [f for f in figures if f["low"] == f["low"]]
    printed = [f["estimated"] for f in figures if np.isfinite(f["estimated"])]  # only beside a narrow range
    mean = {key: float(np.nanmean([f[key] for f in figures])) for key in ("truth", "simple")}
    low, high = (float(np.mean([f[key] for f in some])) if some else np.nan for key in ("low", "high"))
    trained_on = {"argmax": "gold alone", "posterior": "gold and rows"}[method]
    inside = f"{int(sum(f['inside'] for f in some))} of {len(some)}"
    between = f"{low:.3f} to {high:.3f}" if some else ""
    estimated = f"{np.mean(printed):.3f}" if printed else ""
    means = [f"{mean['truth']:.3f}", estimated, f"{len(printed)} of {len(figures)}", f"{mean['simple']:.3f}"]
    return [kind, size, trained_on, *means, between, inside, len(figures) - len(some)]


if __name__ == "__main__":
    main()
