"""Comparison of all correction policies on real text with simulated errors, and the regret of `auto`.

    python benchmarks/correction_grid.py --gold MTS-Dialog/Main-Dataset --seeds 5 --out out --processes 2

A cell is a number of gold rows (50, 100, 200, 400), a kind of error (another label at random; one fixed wrong label for
each) and its rate (10 to 40%). Each run draws 400 of the sections of MTS-Dialog, each text once, for testing, then the
gold; the others are the pool, whose labels are made wrong. Policies decide by `hf_synth.correction.crossfit.decide`,
`auto` by `choose_method`, on frozen features of the texts alone; a linear head trained on gold and the pool under each
policy is scored on the test rows. All policies see the same rows. Runs are stored in `runs.jsonl`: a second call
continues.

Regret is the score of the policy that is best in a cell (by its mean over the cell's runs) minus that of `auto`; its
interval is a bootstrap over cells and the runs within them. Non-inferiority in a cell: the runs' mean difference lies
above -2 points by a one-sided t test, p-values adjusted by Holm over the cells.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from runs import run_missing

SIZES, KINDS, RATES = (50, 100, 200, 400), ("uniform", "fixed"), (0.1, 0.2, 0.3, 0.4)
TEST, MARGIN, WIDTH = 400, 0.02, 300
NAMES = {"gold_only": "gold only"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--features", choices=("lsa", "tfidf", "encoder"), default="lsa")
    parser.add_argument("--encoder", help="folder or repo id of the encoder whose frozen features are used")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    features, labels = read(args.gold, args.features, args.encoder)
    wanted = [(n, k, r, s) for s in range(args.seeds) for n in args.sizes for k in KINDS for r in RATES]
    results = run_missing(partial(one, features, labels), wanted, args.out / "runs.jsonl", args.processes)
    text = summary(results, args.features)
    (args.out / "correction_grid.md").write_text(text + "\n")
    print(text)


def read(folder: Path, kind: str, encoder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, D) of all rows, learnt without labels, and their labels (N,)."""
    from datasets import concatenate_datasets

    from hf_synth.gold.gold import load_gold
    from hf_synth.models.linear import text_features
    from hf_synth.task.scripts import load_task

    task = load_task("mts_dialog")
    gold = load_gold(task, folder)
    rows = each_text_once(concatenate_datasets([gold[s] for s in gold]))
    labels = np.array(rows["label"])
    if kind == "encoder":
        from sklearn.preprocessing import normalize

        from hf_synth.models.inference import embed

        return normalize(np.asarray(embed(task, encoder, rows))), labels
    return text_features(list(rows["text"]), width=WIDTH if kind == "lsa" else 10**9)[0], labels


def each_text_once(rows):
    """Drop rows with the text of an earlier row: some are in several splits of the source."""
    first = {text: i for i, text in reversed(list(enumerate(rows["text"])))}
    return rows.select(sorted(first.values()))


def cut(labels: np.ndarray, size: int, kind: str, rate: float, seed: int) -> tuple[np.ndarray, ...]:
    """Return the positions of test rows, gold and pool, and the pool's labels, made wrong at a rate."""
    rng = np.random.default_rng([seed, size])
    order = rng.permutation(len(labels))
    test, gold, pool = order[:TEST], order[TEST : TEST + size], order[TEST + size :]
    k, truth = int(labels.max()) + 1, labels[pool]
    wrong = (truth + rng.integers(1, k, len(pool))) % k
    if kind == "fixed":
        other = np.random.default_rng(seed).permutation(k)
        wrong = np.where(other == np.arange(k), (other + 1) % k, other)[truth]
    return test, gold, pool, np.where(rng.random(len(pool)) < rate, wrong, truth)


def one(features: np.ndarray, labels: np.ndarray, size: int, kind: str, rate: float, seed: int) -> dict:
    from hf_synth.correction.choice import choose_method
    from hf_synth.correction.crossfit import Rows, decide
    from hf_synth.correction.policy import MEASURED, METHODS
    from hf_synth.models.linear import linear_learner

    started = time.perf_counter()
    test, gold, pool, meant = cut(labels, size, kind, rate, seed)
    k, truth = int(labels.max()) + 1, labels[pool]
    learn = linear_learner(features[gold], features[pool], labels[gold], k)
    both = np.concatenate([gold, test])
    last = linear_learner(features[both], features[pool], labels[both], k)

    def hits(used: np.ndarray, targets: np.ndarray) -> list[int]:
        probs = last(np.arange(size), used, targets)(np.arange(size, size + TEST), np.arange(0))[0]
        return (probs.argmax(1) == labels[test]).astype(int).tolist()

    rows = Rows(meant, labels[gold], None, k, {})
    choice = choose_method(rows, learn, seed=seed)
    every = np.arange(len(pool))
    scored = {"gold only": hits(every[:0], np.zeros((0, k))), "gold + true labels": hits(every, np.eye(k)[truth])}
    right, known = {}, {}
    corrections = {
        method: decide(rows, learn, method, seed=seed, known=known)[1]
        for method in METHODS
        if method not in (*MEASURED, "gold_only")
    }
    corrections["auto"] = decide(rows, learn, choice.method, seed=seed, also=choice.opinions)[1]
    for method, corrected in corrections.items():
        is_used = corrected.weight > 0
        used = np.flatnonzero(is_used)
        scored[method] = hits(used, corrected.probs[used] * corrected.weight[used, None])
        right[method] = [float(np.mean((corrected.label == truth) & is_used)), float(np.mean(is_used))]
    return {
        "run": [size, kind, rate, seed], "chosen": choice.method, "choice": dict(choice.scores),
        "scores": {name: float(np.mean(h)) for name, h in scored.items()}, "labels": right,
        "seconds": round(time.perf_counter() - started, 2),
    }  # fmt: skip


def summary(results: list[dict], features: str) -> str:
    from scipy.stats import t, ttest_1samp

    from hf_synth.evaluation.statistics import holm
    from hf_synth.reports.page import markdown_table

    cells = sorted({tuple(r["run"][:3]) for r in results})
    names = list(results[0]["scores"])
    table = np.array([[[r["scores"][m] for m in names] for r in results if tuple(r["run"][:3]) == c] for c in cells])
    fixed = [m for m in names if m not in ("gold only", "gold + true labels", "auto")]
    at = {m: i for i, m in enumerate(names)}
    auto = table[:, :, at["auto"]]

    def regret(scores: np.ndarray) -> float:
        best = scores[:, :, [at[m] for m in fixed]].mean(1).max(1)
        return float((best - scores[:, :, at["auto"]].mean(1)).mean())

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2_000):
        some = rng.integers(0, len(cells), len(cells))
        runs = rng.integers(0, table.shape[1], (len(cells), table.shape[1]))
        best = table.mean(1)[some][:, [at[m] for m in fixed]].argmax(1)  # the best over all runs, not resampled
        picked = np.array([table[c][r] for c, r in zip(some, runs, strict=True)])
        top = np.array([picked[i][:, at[fixed[b]]].mean() for i, b in enumerate(best)])
        drawn.append((top - picked[:, :, at["auto"]].mean(1)).mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    lines = [
        f"{len(cells)} cells, {table.shape[1]} runs each, features: {features}. Labels were made wrong by the "
        "benchmark: the texts are real, the errors are simulated.",
        f"Regret of auto: {100 * regret(table):.2f} points (95% {100 * low:.2f} to {100 * high:.2f}).",
    ]
    for other in ("none", "gold only"):
        gaps = auto - table[:, :, at[other]]
        p = [float(ttest_1samp(g + MARGIN, 0, alternative="greater").pvalue) if np.ptp(g) else 0.0 for g in gaps]
        half = t.ppf(0.975, gaps.size - 1) * gaps.std(ddof=1) / np.sqrt(gaps.size)
        lines.append(
            f"auto against {'raw labels' if other == 'none' else other}: {100 * gaps.mean():+.1f} points on average "
            f"(+-{100 * half:.1f}); lower in {int((gaps.mean(1) < 0).sum())} of {len(cells)} cells, lowest cell "
            f"{100 * gaps.mean(1).min():+.1f}; not inferior by 2 points in "
            f"{int((holm(p) < 0.05).sum())} cells (Holm, 5%)."
        )
    rows = []
    for m in sorted(names, key=lambda m: -table[:, :, at[m]].mean()):
        by = [
            [c[part] == value for c in cells] for part, values in enumerate((SIZES, KINDS, RATES)) for value in values
        ]
        values = [float(table[np.array(sel)][:, :, at[m]].mean()) if any(sel) else float("nan") for sel in by]
        gap = (auto - table[:, :, at[m]]).mean(1)
        se = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        lost = "" if m == "auto" else f"{100 * gap.mean():+.2f} (+-{196 * se:.2f})"
        rows.append([m, float(table[:, :, at[m]].mean()), *values, lost])
    head = ["labels by", "all", *(f"{n} gold" for n in SIZES), *KINDS, *(f"{r:.0%}" for r in RATES), "auto minus it"]
    chosen = Counter(NAMES.get(r["chosen"], r["chosen"]) for r in results)
    lines.append("auto chose " + ", ".join(f"{m} {n} times" for m, n in chosen.most_common()) + ".")
    lines.append("Accuracy of the head on test rows:\n\n" + markdown_table(head, rows))
    label_rows = [
        [m, *(float(np.mean([r["labels"][m][i] for r in results])) for i in (0, 1)),
         *(float(np.mean([r["labels"][m][0] for r in results if r["run"][2] == rate])) for rate in RATES)]
        for m in (*fixed, "auto")
    ]  # fmt: skip
    lines.append(
        "Share of pool rows used with the right label, and used at all (only a simulation knows):\n\n"
        + markdown_table(
            ["labels by", "right and used", "used", *(f"right at {r:.0%} wrong" for r in RATES)], label_rows
        )
    )
    lines.append(f"{np.mean([r['seconds'] for r in results]):.1f} seconds a run on average.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
