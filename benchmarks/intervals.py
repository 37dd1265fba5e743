"""Coverage of the 95% intervals of scores: `python benchmarks/intervals.py FOLDER [DRAWS] [SECTION ...]`.

FOLDER holds tables of labels that LLMs gave beside labels of people (columns label and one a model, .csv): each is a
finite population, from which test sets are drawn. The other populations are simulated. An interval is right if it holds
the score of the whole population. Writes docs/results/intervals.md to standard output.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.evaluation import intervals, metrics
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores, score
from hf_synth.evaluation.scoring import prepare
from hf_synth.evaluation.statistics import interval_over_seeds, wilson
from hf_synth.reports.page import markdown_table
from hf_synth.task.task import Task

Array = metrics.Array
SIZES = (20, 30, 50, 100, 200, 500, 1_000)
ASKED = (0.93, 0.985)  # coverage
ENOUGH = 100  # intervals without which a cell is not judged
PAGE = """# Intervals: how often they hold what is true

Written by `benchmarks/intervals.py` from {draws:,} test sets a cell ({half:,} for AUROC, AUPRC and differences). A
cell is one population and one number of rows (or patients, or seeds). An interval is right if it holds the score of
the population that the test set was drawn from. Asked for is a coverage from .93 to .985.

"Real" test sets are drawn from labels that real LLMs gave beside labels of people: nothing in them is simulated but
the draw. All other populations are **simulated**.

How to read the tables. "Coverage" is over all intervals printed. "Of cells" is the range over populations with
{enough} intervals or more; {draws:,} draws of a true coverage of .95 lie within {noise:.3f} of it in 19 of 20 cells,
so that some of many cells are outside by chance. "Below / above" counts cells outside .93 and .985, and below each
table stand those that chance does not explain (two standard errors). "No interval" is the share of test sets for
which the score has none. "Width" is the mean width beside Wilson's interval for accuracy, and beside the percentile
bootstrap for macro-F1 from 200 rows on; in brackets that of the widest cell.

What has no interval, and why:

- Macro scores and AUROC where a label of the task has fewer than 5 test rows; AUPRC where one has fewer than 10.
  The scores of other labels, accuracy, weighted F1 and `macro_f1_min10` have
  theirs.
- Macro precision where a label is predicted in fewer than 5 rows. MCC unless two labels have 5 rows and 5
  predictions.
- The calibration error: few rows make it too high, by an amount that resampling does not show.
- Anything that was scored on rows of a single patient; gold equivalence of fewer than five runs.

Differences of two models that differ in a handful of rows are held more often than .985: each row more or less moves
the interval by more than the difference.
"""
BOOTSTRAPPED = 40  # test sets of a cell that are resampled for the width of the percentile bootstrap
COLUMNS = {
    "media_bias": ("gpt_4__zero-shot", "zephyr__8-shot", "llama_13b__zero-shot", "flan_t5_base__zero-shot")
}  # of 35: right in 83%, 78%, 62% and 58%


@dataclass
class Cell:
    """Intervals of one metric on test sets of one size from one population."""

    right: int = 0
    printed: int = 0
    drawn: int = 0
    width: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def add(self, limits: tuple[float, float] | None, truth: float) -> None:
        self.drawn += 1
        if limits is not None:
            self.printed += 1
            self.right += limits[0] - 1e-9 <= truth <= limits[1] + 1e-9

    @property
    def coverage(self) -> float:
        return self.right / max(1, self.printed)


Cells = dict[tuple[str, int, str], Cell]  # (metric, n, population)


def labels_task(k: int) -> Task:
    names = [f"label {i}" for i in range(k)]
    return Task.from_columns("toy", text_columns="text", label_column="label", labels=names, access="open")


# --- one label a row --------------------------------------------------------------------------------------------------
def confusion(shares: Array, accuracy: float | Sequence[float]) -> Array:
    """Return the joint probabilities of true and predicted label, (k, k): errors go to common labels more often."""
    k = len(shares)
    right = np.broadcast_to(np.asarray(accuracy, float), k)
    wrong = np.tile(shares, (k, 1)) * (1 - np.eye(k))
    return np.asarray(shares[:, None] * (np.diag(right) + (1 - right)[:, None] * wrong / wrong.sum(1, keepdims=True)))


def simulated() -> Iterator[tuple[str, Array]]:
    """Yield the joint probabilities of simulated populations, by name."""
    for accuracy in (0.55, 0.75, 0.9, 0.98):
        for k in (2, 3, 5, 8):
            yield f"{k} equal labels, {accuracy}", confusion(np.full(k, 1 / k), accuracy)
        yield f"labels of 90% and 10%, {accuracy}", confusion(np.array([0.9, 0.1]), accuracy)
        skewed = 0.6 ** np.arange(5)
        yield f"5 labels, 43% to 6%, {accuracy}", confusion(skewed / skewed.sum(), accuracy)
    yield "a label of 2% among 3, found in 60%", confusion(np.array([0.49, 0.49, 0.02]), (0.9, 0.9, 0.6))
    yield "a label of 2% among 2, found in 60%", confusion(np.array([0.98, 0.02]), (0.99, 0.6))
    yield "a label of 2% among 2, found in 90%", confusion(np.array([0.98, 0.02]), (0.99, 0.9))


def real(folder: Path) -> Iterator[tuple[str, Array]]:
    """Yield the joint counts of people's labels and an LLM's, by name of the table and column."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        for column in llm_columns(path.stem, list(rows[0])):
            pairs = [(row["label"], row[column]) for row in rows if row[column]]
            names = sorted({label for label, _ in pairs})
            counts = np.zeros((len(names), len(names)))
            for label, guess in pairs:
                if guess in names:
                    counts[names.index(label), names.index(guess)] += 1
            yield f"{path.stem}: {column}", counts


def llm_columns(name: str, columns: Sequence[str]) -> list[str]:
    """Return the columns of a table that hold an LLM's labels; four of `media_bias`, which has 35."""
    known = [c for c in COLUMNS.get(name, ()) if c in columns]
    others = [c for c in columns if c not in ("id", "text", "label", "group") and "confidence" not in c]
    return known or others


def population_values(joint: Array) -> dict[str, float]:
    """Return the scores of a population from its joint counts, and recall and F1 of the last label."""
    k = len(joint)
    sums = np.hstack([np.diag(joint), joint.sum(1), joint.sum(0)])[None] * (1e6 / joint.sum())
    values = {name: float(value[0]) for name, value in metrics.label_values(sums, known=np.ones(k, bool)).items()}
    for kind, (hits, rows) in intervals.label_shares(sums, k).items():
        values[f"{kind} of the last label"] = float(intervals.f1_of_share(kind, hits / rows)[0, -1])
    return values


def measure_labels(name: str, joint: Array, draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Add the intervals of test sets of every size to the cells."""
    k, truth = len(joint), population_values(joint)
    task, flat = labels_task(k), (joint / joint.sum()).ravel()
    for n in SIZES:
        for i in range(draws):
            at = rng.choice(k * k, n, p=flat)
            true, guess = at // k, at % k
            found = prepare(task, guess, true)
            limits = dict(found.ci95)
            for kind, pair in found.more["class_ci95"].get(task.labels[-1], {}).items():
                limits[f"{kind} of the last label"] = pair
            for metric in ("accuracy", "macro_f1", "macro_recall", "macro_precision", "weighted_f1", "mcc"):
                cells[metric, n, name].add(limits.get(metric), truth[metric])
            for kind in intervals.KINDS:
                cells[f"{kind} of the last label", n, name].add(
                    limits.get(f"{kind} of the last label"), truth[f"{kind} of the last label"]
                )
            low, high = limits["accuracy"]
            cells["accuracy", n, name].width.append(high - low)
            cells["accuracy", n, name].reference.append(float(np.ptp(wilson(int((true == guess).sum()), n))))
            if n >= 200 and i < BOOTSTRAPPED and "macro_f1" in limits:
                low, high = limits["macro_f1"]
                cells["macro_f1", n, name].width.append(high - low)
                cells["macro_f1", n, name].reference.append(bootstrap_width(at, k, rng))


def bootstrap_width(at: Array, k: int, rng: np.random.Generator, resamples: int = 400) -> float:
    """Return the width of the plain percentile bootstrap interval of macro-F1 over the labels of the test set."""
    n, counts = len(at), np.bincount(at, minlength=k * k)
    drawn = rng.multinomial(n, counts / n, resamples).reshape(-1, k, k).astype(float)
    sums = np.hstack([np.einsum("bkk->bk", drawn), drawn.sum(2), drawn.sum(1)])
    known = (counts.reshape(k, k).sum(0) + counts.reshape(k, k).sum(1)) > 0
    return float(np.ptp(np.percentile(metrics.label_values(sums, known=known)["macro_f1"], [2.5, 97.5])))


# --- patients ---------------------------------------------------------------------------------------------------------
def patients(n: int, rows: int, spread: float, rng: np.random.Generator, easy: float = 1.5) -> tuple[Array, ...]:
    """Draw n patients of 1 to 2 x rows - 1 notes with three labels; `spread` is the standard deviation of log odds."""
    sizes = rng.integers(1, 2 * rows, n)
    codes = np.repeat(np.arange(n), sizes)
    lean = rng.dirichlet([2.0, 1.5, 1.0], n)[codes]  # a patient's notes have like labels
    true = (rng.random((len(codes), 1)) > lean.cumsum(1)).sum(1).clip(max=2)
    odds = easy + spread * rng.normal(size=n)[codes]
    right = rng.random(len(codes)) < 1 / (1 + np.exp(-odds))
    guess = np.where(right, true, (true + rng.integers(1, 3, len(codes))) % 3)
    probs = np.full((len(codes), 3), 0.15) + 0.2 * rng.random((len(codes), 3))
    probs[np.arange(len(codes)), guess] += 0.6
    return true, codes, probs / probs.sum(1, keepdims=True)


def measure_patients(draws: int, cells: Cells, rng: np.random.Generator) -> None:
    task = labels_task(3)
    for spread, easy in ((0.5, 1.5), (1.5, 1.5), (1.0, 3.0)):
        for rows in (4, 10):
            name = f"{rows} notes, sd {spread}, {'.8' if easy < 2 else '.95'}"
            true, codes, probs = patients(60_000, rows, spread, rng, easy)
            truth = prepare(task, probs, true, limits=False).values
            for n in (1, 5, 10, 20, 50, 200):
                for _ in range(draws):
                    true, codes, probs = patients(n, rows, spread, rng, easy)
                    found = prepare(task, probs, true, list(codes))
                    for metric in ("accuracy", "macro_f1", "mcc", "weighted_f1", "auroc", "auprc"):
                        cells[metric, n, name].add(found.ci95.get(metric), truth[metric])


# --- ranks, sets, texts -----------------------------------------------------------------------------------------------
def measure_ranks(draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Draw normal scores of two labels, and softmax of normal scores of four labels."""
    for k, shares in ((2, (0.5, 0.5)), (2, (0.8, 0.2)), (2, (0.95, 0.05)), (4, (0.4, 0.3, 0.2, 0.1))):
        task = labels_task(k)
        for gap in (0.5, 1.5, 3.0):
            name = f"{k} labels, rarest {min(shares):.0%}, gap {gap}"

            def drawn(n: int, shares: Any = shares, gap: float = gap) -> tuple[Array, Array]:
                true = rng.choice(len(shares), n, p=shares)
                odds = rng.normal(size=(n, len(shares))) + gap * np.eye(len(shares))[true]
                return true, np.exp(odds) / np.exp(odds).sum(1, keepdims=True)

            true, probs = drawn(200_000)
            truth = prepare(task, probs, true, limits=False).values
            for n in SIZES:
                for _ in range(draws):
                    true, probs = drawn(n)
                    found = prepare(task, probs, true)
                    for metric in ("auroc", "auprc"):
                        cells[metric, n, name].add(found.ci95.get(metric), truth[metric])


def measure_sets(draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Draw sets of five labels, present in 50% to 5% of the rows and correlated within a row."""
    names = [f"label {i}" for i in range(5)]
    task = Task.from_columns(
        "sets", text_columns="t", label_column="l", labels=names, kind="multi_label", access="open"
    )
    shares = np.array([0.5, 0.35, 0.2, 0.1, 0.05])
    for miss, extra in ((0.3, 0.1), (0.1, 0.02)):
        name = f"missed {miss:.0%}, added {extra:.0%}"

        def drawn(n: int, miss: float = miss, extra: float = extra) -> tuple[Array, Array]:
            hard = 1 + rng.uniform(-0.8, 0.8, (n, 1))
            true = rng.random((n, 5)) < shares
            chance = rng.random((n, 5))
            return true, np.where(true, chance > miss * hard, chance < extra * hard).astype(float)

        true, guess = drawn(200_000)
        truth = prepare(task, guess, true, limits=False).values
        for n in SIZES:
            for _ in range(draws):
                true, guess = drawn(n)
                found = prepare(task, guess, true)
                for metric in ("accuracy", "micro_f1", "macro_f1", "macro_recall", "weighted_f1"):
                    cells[metric, n, name].add(found.ci95.get(metric), truth[metric])


def measure_means(draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Draw scores of texts between 0 and 1: beta distributed, a part of them exactly 1."""
    for name, exact, a, b in (("half of it right", 0.1, 2.0, 2.0), ("most of it right", 0.5, 4.0, 1.5)):
        truth = exact + (1 - exact) * a / (a + b)
        for n in SIZES:
            for _ in range(draws):
                values = np.where(rng.random(n) < exact, 1.0, rng.beta(a, b, n))
                cells["token_f1, ROUGE", n, name].add(intervals.mean_limits(values, np.arange(n)), truth)


# --- two models -------------------------------------------------------------------------------------------------------
def measure_pairs(folder: Path, draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Compare two models on the same rows: simulated ones, and pairs of LLMs on real rows."""
    pools = {}
    for k in (2, 4):
        for a, b, same in ((0.8, 0.8, 0.0), (0.9, 0.8, 0.5), (0.95, 0.93, 0.5), (0.98, 0.98, 0.0), (0.9, 0.9, 0.8)):
            shares = 0.7 ** np.arange(k)
            true = rng.choice(k, 200_000, p=shares / shares.sum())
            chance, other = rng.random(len(true)), rng.random(len(true))
            other = np.where(rng.random(len(true)) < same, chance, other)
            guesses = [
                np.where(c < p, true, (true + 1 + (17 * c * 1e6).astype(int) % (k - 1)) % k)
                for c, p in ((chance, a), (other, b))
            ]
            pools[f"{k} labels, {a} and {b}, {same:.0%} alike"] = (true, *guesses)
    path = folder / "media_bias.csv"
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        columns = llm_columns("media_bias", list(rows[0]))[:2]
        kept = [r for r in rows if all(r[c] for c in columns)]
        codes = {name: i for i, name in enumerate(sorted({r["label"] for r in rows}))}
        table = [np.array([codes.get(r[c], 0) for r in kept]) for c in ("label", *columns)]
        pools["media_bias: two LLMs"] = (table[0], table[1], table[2])
    for name, (true, first, second) in pools.items():
        k = int(true.max()) + 1
        task, chosen = labels_task(k), ("accuracy", "macro_f1")
        all_of = [prepare(task, guess, true, limits=False).values for guess in (first, second)]
        for n in SIZES:
            for _ in range(draws):
                at = rng.integers(len(true), size=n)
                a, b = (plain_scores(task, guess[at], true[at]) for guess in (first, second))
                for metric in chosen:
                    found = compare(a, b, metric).ci95
                    cells[metric, n, name].add(found, all_of[0][metric] - all_of[1][metric])


def plain_scores(task: Task, guess: Array, true: Array) -> Scores:
    return score(task, guess, true, n_bootstrap=0)


# --- seeds ------------------------------------------------------------------------------------------------------------
def measure_seeds(draws: int, cells: Cells, rng: np.random.Generator) -> None:
    """Draw differences of two arms over seeds whose gold is drawn from one pool; the true difference is 0.

    Each gold row does something for one arm over the other, test rows are the same for all seeds, runs add noise.
    """
    for name, pool, gold in (
        ("200 of 1,243", 1_243, 200),
        ("800 of 1,243", 1_243, 800),
        ("200 of 10,000", 10_000, 200),
    ):
        for seeds in (3, 5, 10):
            for _ in range(draws):
                worth = rng.normal(0, 1, pool)
                gaps = [worth[rng.permutation(pool)[:gold]].mean() + rng.normal(0, 0.01) for _ in range(seeds)]
                for metric, overlap in (("corrected", gold / pool), ("plain t", 0.0)):
                    cells[metric, seeds, name].add(interval_over_seeds(gaps, overlap=overlap), 0.0)


# --- tables -----------------------------------------------------------------------------------------------------------
def summary(cells: Cells) -> str:
    """Write a table by metric and n: mean coverage, the range over populations, refusals, width."""
    by_metric: dict[tuple[str, int], list[tuple[str, Cell]]] = defaultdict(list)
    for (metric, n, name), cell in cells.items():
        by_metric[metric, n].append((name, cell))
    rows = []
    for (metric, n), found in sorted(by_metric.items()):
        judged = [cell for _, cell in found if cell.printed >= ENOUGH]
        refused = 1 - sum(c.printed for _, c in found) / sum(c.drawn for _, c in found)
        if not judged:
            rows.append([metric, f"{n:,}", 0, "", "", "", f"{refused:.0%}", ""])
            continue
        cover = [c.coverage for c in judged]
        low, high = (sum(c < ASKED[0] for c in cover), sum(c > ASKED[1] for c in cover))
        widths = [np.mean(c.width) / np.mean(c.reference) for c in judged if c.reference]
        ratio = f"{np.mean(widths):.2f} ({max(widths):.2f})" if widths else ""
        mean = sum(c.right for c in judged) / sum(c.printed for c in judged)
        spread = f"{min(cover):.3f} to {max(cover):.3f}"
        rows.append([metric, f"{n:,}", len(judged), f"{mean:.3f}", spread, f"{low} / {high}", f"{refused:.0%}", ratio])
    head = ["metric", "n", "cells", "coverage", "of cells", "below / above", "no interval", "width (widest cell)"]
    return markdown_table(head, rows)


def outside(cells: Cells) -> str:
    """List the cells whose coverage is outside what is asked by more than chance makes it."""
    lines = []
    for (metric, n, name), cell in sorted(cells.items()):
        noise = 2 * np.sqrt(0.95 * 0.05 / max(1, cell.printed))
        if cell.printed >= ENOUGH and not ASKED[0] - noise <= cell.coverage <= ASKED[1] + noise / 2:
            lines.append([metric, f"{n:,}", name, cell.printed, f"{cell.coverage:.3f}"])
    return markdown_table(["metric", "n", "population", "intervals", "coverage"], lines) if lines else "None."


def run(title: str, measure: Callable[[Cells, np.random.Generator], None]) -> None:
    began, cells = time.process_time(), defaultdict[tuple[str, int, str], Cell](Cell)
    measure(cells, np.random.default_rng(0))
    print(f"## {title}\n\n{summary(cells)}\n\nCells outside by more than chance:\n\n{outside(cells)}\n")
    print(f"{title}: {time.process_time() - began:.0f} CPU seconds", file=sys.stderr)


def main(folder: Path, draws: int = 500, *only: str) -> None:
    def labels(populations: Iterator[tuple[str, Array]]) -> Callable[[Cells, np.random.Generator], None]:
        def measure(cells: Cells, rng: np.random.Generator) -> None:
            for name, joint in populations:
                measure_labels(name, joint, draws, cells, rng)

        return measure

    sections: dict[str, Callable[[Cells, np.random.Generator], None]] = {
        "Labels of real LLMs": labels(real(folder)),
        "Simulated labels": labels(simulated()),
        "Simulated patients, by number of patients": lambda cells, rng: measure_patients(draws, cells, rng),
        "AUROC and AUPRC, simulated": lambda cells, rng: measure_ranks(draws // 2, cells, rng),
        "Sets of labels, simulated": lambda cells, rng: measure_sets(draws, cells, rng),
        "Scores of texts, simulated": lambda cells, rng: measure_means(draws, cells, rng),
        "Differences of two models on the same rows": lambda cells, rng: measure_pairs(folder, draws // 2, cells, rng),
        "Seeds that share one pool of gold, simulated": lambda cells, rng: measure_seeds(2 * draws, cells, rng),
    }
    if not only:
        noise = 2 * float(np.sqrt(0.95 * 0.05 / draws))
        print(PAGE.format(draws=draws, half=draws // 2, enough=ENOUGH, noise=noise))
    for title, measure in sections.items():
        if not only or any(word in title for word in only):
            run(title, measure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:])
