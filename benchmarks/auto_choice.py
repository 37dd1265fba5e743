"""Whether `auto` chooses on some of the rows what it chooses on all of them, and how long both take.

    python benchmarks/auto_choice.py [--rows 100000] [--some 5000 20000 50000] [--seeds 20]
                                     [--first-seed 0] [--out docs/results/auto_choice.md]

Features and a model's probabilities are simulated: 4 labels, 200 gold rows, features of 60 numbers. Each seed draws
anew how often the LLM is right (55% to 90%) and how often the model is (60% to 90%), and how well a linear head can
tell labels apart, so that methods differ by more in some seeds than in others. `auto` on texts learns its features on
5,000 of the rows: that is not a part of this.

"all" chooses on all rows, the others on that many, drawn as `correct` draws them. In ways called "weighted" a drawn row
counts for all rows that it stands for, so that gold weighs against them what it weighs against all rows. Methods whose
bounds lie within a share of the standard error of their difference are near ties: the table counts how often choices
are equal if the first of them in one fixed order is taken, for several shares, and what "all" then loses.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from correction_speed import features_of

from hf_synth.correction.choice import CAUTION, CHOSEN_ON, Choice, choose_method
from hf_synth.correction.crossfit import Learn, Rows, part_of_rows
from hf_synth.models.linear import draw_positions, linear_learner
from hf_synth.reports.page import markdown_table

LABELS, GOLD, WIDTH = 4, 200, 60
ORDER = ("blend", "posterior", "gold_only")  # which of near ties is taken
SHARES = (0.0, 0.25, 0.5, 1.0)
ASKED = 0.9  # of the choices shall be those on all rows


def problem(n: int, seed: int) -> tuple[Rows, Learn, tuple[Any, Any]]:
    """Simulate rows, gold, a linear learner, and a model's probabilities of gold and of rows."""
    rng = np.random.default_rng(seed)
    right, sure = rng.uniform(0.55, 0.9), rng.uniform(0.6, 0.9)
    truth, gold = rng.integers(0, LABELS, n), rng.integers(0, LABELS, GOLD)
    meant = np.where(rng.random(n) < right, truth, (truth + rng.integers(1, LABELS, n)) % LABELS)
    centres = rng.normal(size=(LABELS, WIDTH)) * rng.uniform(0.08, 0.3)

    def probabilities(labels: Any) -> Any:
        seen = np.where(rng.random(len(labels)) < sure, labels, rng.integers(0, LABELS, len(labels)))
        probs = rng.dirichlet(np.full(LABELS, 0.5), len(labels)) + 1.5 * np.eye(LABELS)[seen]
        return probs / probs.sum(1, keepdims=True)

    opinions = probabilities(gold), probabilities(truth)
    x_gold, x_rows = features_of(gold, centres, rng), features_of(truth, centres, rng)
    return Rows(meant, gold, None, LABELS, {}), linear_learner(x_gold, x_rows, gold, LABELS), opinions


def choices(n: int, some: list[int], seed: int) -> dict[str, tuple[Choice, float]]:
    """Choose in each way; return choices and CPU seconds."""
    rows, learn, (of_gold, of_rows) = problem(n, seed)
    found = {}
    for most, weighted in ((n, False), *((most, weighted) for most in some for weighted in (False, True))):
        began = time.process_time()
        keep = draw_positions(n, most, seed)
        part, learn_part = part_of_rows(rows, learn, keep)
        if weighted:
            learn_part = weighing(learn_part, n / len(keep))
        choice = choose_method(part, learn_part, opinions=(of_gold, of_rows[keep]), seed=seed)
        way = "all" if most == n else f"{most:,}" + weighted * ", weighted"
        found[way] = choice, time.process_time() - began
    return found


def weighing(learn: Learn, factor: float) -> Learn:
    """Return a learner to which each synthetic row counts for `factor` rows."""
    return lambda gold, rows, targets: learn(gold, rows, targets * factor)


def bound(choice: Choice, method: str) -> float:
    return choice.gains[method].expected - CAUTION * choice.gains[method].sd


def with_ties(choice: Choice, share: float) -> str:
    """Return the first method in ORDER whose bound is within a share of a standard error of the chosen one's."""
    able = [m for m, gain in choice.gains.items() if gain.held_out >= -gain.error]
    near = [m for m in able if bound(choice, choice.method) - bound(choice, m) <= share * choice.behind[m][1]]
    return min(near, key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m)) if share else choice.method


def page(n: int, some: list[int], found: list[dict[str, tuple[Choice, float]]], first: int) -> str:
    ways = list(found[0])
    lines = []
    for share in SHARES:
        taken = [{way: with_ties(one[way][0], share) for way in ways} for one in found]
        equal = [f"{sum(t[way] == t['all'] for t in taken)} of {len(taken)}" for way in ways[1:]]
        lost = [
            bound(o["all"][0], o["all"][0].method) - bound(o["all"][0], t["all"])
            for o, t in zip(found, taken, strict=True)
        ]
        lines.append([f"{share:g}", *equal, f"{100 * float(np.mean(lost)):.2f}"])
    seeds = []
    for seed, one in enumerate(found, first):
        cells = [
            f"{choice.method} ({', '.join(f'{100 * bound(choice, m):+.2f}' for m in ORDER[:2] if m in choice.gains)})"
            for choice, _ in one.values()
        ]
        seeds.append([str(seed), *cells])
    seconds = [f"{np.mean([one[way][1] for one in found]):.1f}" for way in ways]
    spent = ", ".join(f"{way} {took}" for way, took in zip(ways, seconds, strict=True))
    asked = f"at least {ASKED * len(found):g} of {len(found)} are asked for."
    verdict = f"`correct` chooses on all rows where there are at most {CHOSEN_ON:,}, and on {CHOSEN_ON:,} of more."
    if n <= CHOSEN_ON:
        verdict += f" On {n:,} rows its choice is thus that on all rows, by construction; {asked}"
    elif (ours := f"{CHOSEN_ON:,}") in ways:
        equal_now = sum(one[ours][0].method == one["all"][0].method for one in found)
        verdict += f" {equal_now} of {len(found)} choices are those on all rows; {asked}"
    sizes = " ".join(map(str, some))
    given = f"--rows {n} --some {sizes} --seeds {len(found)} --first-seed {first}"
    parts = (__doc__ or "").split("\n\n")
    head = ["near ties: share of a standard error", *(f"{way} = all" for way in ways[1:]), "points lost"]
    return "\n\n".join([
        "# The choice of `auto` on some of the rows",
        f"`python benchmarks/auto_choice.py {given}`",
        *(" ".join(part.split()) for part in parts[2:4]),
        markdown_table(head, lines),
        verdict,
        f"CPU seconds of a choice on one thread: {spent}. `auto` as a whole process, on texts: [scaling](scaling.md).",
        f"Choices, with the bounds of {' and '.join(ORDER[:2])} in points of score over gold only:",
        markdown_table(["seed", *ways], seeds),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--some", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="others than those on which a rule was picked")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        found.append(choices(args.rows, args.some, seed))
        print(seed, *(f"{way}: {c.method} {s:.1f} s" for way, (c, s) in found[-1].items()), sep="; ", flush=True)
    text = page(args.rows, args.some, found, args.first_seed)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
