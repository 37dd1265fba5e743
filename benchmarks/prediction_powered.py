"""Coverage and width of prediction-powered intervals on real labels of real LLMs.

    python benchmarks/prediction_powered.py FOLDER [--draws 300] [--out docs/results/prediction_powered.md]

FOLDER is that of `label_error.py`. A softmax regression on text features is fitted on 200 rows with labels by people.
"Audited, random" and "audited, by label": the LLM's accuracy on all other rows is estimated from n of them, drawn at
random or equally many of each label, and the regression's probability of the LLM's label on all of them. "Score": the
regression's own accuracy in the population is estimated from n labelled rows and its largest probability on n + 1,000
rows; both are drawn with replacement from the other rows, which are the population. Beside the prediction-powered
interval stands the one of the labelled rows alone: Wilson's, and that of `design_share` for rows drawn by label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from label_error import COLUMNS, Table, tables
from sklearn.linear_model import LogisticRegression

from hf_synth.evaluation.prediction_powered import Powered, prediction_powered
from hf_synth.evaluation.statistics import design_share, wilson
from hf_synth.models.linear import text_features
from hf_synth.reports.page import markdown_table

GOLD, SIZES, MORE = 200, (30, 100, 200), 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--sets", nargs="*", default=list(COLUMNS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines: list[list[object]] = []
    for table in tables(args.folder, args.sets):
        for line in lines_of(table, args.draws):
            lines.append(line)
            print(*line, flush=True)
    head = ["labels", "estimated", "labelled", "truth", "covered", "width", "covered, alone", "width, alone", "ratio"]
    ratios = [float(str(line[-1])) for line in lines]
    covered = [float(str(line[4])) for line in lines]
    short = (
        f"Coverage lies between {min(covered):.3f} and {max(covered):.3f}, {np.mean(covered):.3f} on average. "
        f"Intervals are {np.mean(ratios):.2f} times as wide as those of the labelled rows alone ({min(ratios):.2f} to "
        f"{max(ratios):.2f}; means of {len(lines)} cells)."
    )
    text = markdown_table(head, lines)
    print(text, short, sep="\n\n")
    if args.out:
        about = "\n\n".join(part.replace("\n", " ").strip() for part in __doc__.split("\n\n")[2:])
        means = f"Means over {args.draws} draws (`python benchmarks/prediction_powered.py FOLDER`); intervals of 95%."
        title = "# Prediction-powered intervals, on real labels of real LLMs"
        args.out.write_text("\n\n".join([title, about, means, short, text]) + "\n", encoding="utf-8")


def lines_of(table: Table, draws: int) -> list[list[object]]:
    x = text_features(table.texts, width=100)[0]
    order = np.random.default_rng(0).permutation(len(table.texts))
    gold, known = order[:GOLD], {table.texts[i] for i in order[:GOLD]}
    rest = np.array([i for i in order[GOLD:] if table.texts[i] not in known])
    model = LogisticRegression(C=3.0, max_iter=300).fit(x[gold], table.truth[gold])
    probs = np.zeros((len(rest), table.n_labels))
    probs[:, model.classes_] = model.predict_proba(x[rest])
    meant, truth, rows = table.meant[rest], table.truth[rest], np.arange(len(rest))
    right, chance = (meant == truth).astype(float), probs[rows, meant]
    good, sure = (probs.argmax(1) == truth).astype(float), probs.max(1)
    lines = []
    for n in SIZES:
        found: dict[str, list[tuple[Powered, tuple[float, float]]]] = {
            "audited, random": [], "audited, by label": [], "score": [],
        }  # fmt: skip
        for seed in range(draws):
            rng = np.random.default_rng([n, seed])
            at = rng.permutation(rows)[:n]
            alone = wilson(int(right[at].sum()), n)
            found["audited, random"].append((prediction_powered(right[at], chance[at], chance, census=True), alone))
            at, weights = by_label(meant, n, table.n_labels, rng)
            powered = prediction_powered(right[at], chance[at], chance, weights=weights, strata=meant[at], census=True)
            found["audited, by label"].append((powered, design_share(right[at], weights, meant[at])[1:]))
            at, more = rng.choice(rows, n), rng.choice(rows, n + MORE)
            found["score"].append((prediction_powered(good[at], sure[at], sure[more]), wilson(int(good[at].sum()), n)))
        for name, pairs in found.items():
            lines.append(line([table.name, name, n], float((good if name == "score" else right).mean()), pairs))
    return lines


def by_label(meant: np.ndarray, n: int, n_labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw equally many rows of each label, and return them with their weights."""
    each = [rng.permutation(np.flatnonzero(meant == label)) for label in range(n_labels)]
    drawn = [rows[: max(2, n // n_labels)] for rows in each]
    weights = [np.full(len(some), len(rows) / max(1, len(some))) for rows, some in zip(each, drawn, strict=True)]
    return np.concatenate(drawn), np.concatenate(weights)


def line(name: list[object], truth: float, pairs: list[tuple[Powered, tuple[float, float]]]) -> list[object]:
    covered = np.mean([p.low <= truth <= p.high for p, _ in pairs])
    alone = np.mean([low <= truth <= high for _, (low, high) in pairs])
    width, before = np.mean([p.high - p.low for p, _ in pairs]), np.mean([high - low for _, (low, high) in pairs])
    figures = [f"{value:.3f}" for value in (truth, covered, width, alone, before)]
    return [*name, *figures, f"{width / before:.2f}"]


if __name__ == "__main__":
    main()
