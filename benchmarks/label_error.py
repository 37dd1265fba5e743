"""The promise about wrong labels on real labels of real LLMs, compared with the published rule.

    python benchmarks/label_error.py FOLDER [--draws 200] [--out docs/results/label_error.md]

FOLDER holds tables with the columns `text`, `label` (by people), a column with the labels of each LLM, and perhaps
`<LLM>_confidence`. Equal texts never stand on two sides.

Labels are "stated" (the LLM's label, as sure as the LLM says it is) or "joined" (a softmax regression on text features
and the LLM's label, fitted on 200 rows with labels by people that are drawn anew in each draw; its label and largest
probability). The published rule is Candes, Ilyas and Zrnic (2025, arXiv 2506.10908): m rows drawn with replacement give
an upper bound of the mean error below each threshold, and all rows above the largest threshold whose bound is at most
epsilon are looked at. The bound is by betting (valid for any sample) or normal (valid for large samples only); m is a
fifth of the rows, as in the paper's experiments with text. For "best m" the cheapest of a tenth, a fifth and three
tenths is taken after the fact. "Knows all" is somebody who knows which labels are wrong and looks at the least sure
rows until few enough are left.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from hf_synth.correction.label_error import draw, plan
from hf_synth.models.linear import text_features
from hf_synth.reports.page import markdown_table

COLUMNS = {
    "stance": ("gpt_4o",),
    "misinformation": ("gpt_4o",),
    "politeness": ("gpt_4o",),
    "mts_smollm2": ("smollm2",),
    "media_bias": ("gpt_4__zero-shot", "flan_ul2__zero-shot", "mistral_7b__zero-shot"),
}
ERRORS, CONFIDENCE, GOLD, SHARES = (0.05, 0.1, 0.02), 0.95, 200, (0.1, 0.2, 0.3)
Z = 1.644854  # 95% quantile of the normal distribution


class Table(NamedTuple):
    """Texts, labels of people and of one LLM, and its stated confidence (nan where it states none)."""

    name: str
    texts: list[str]
    truth: np.ndarray
    meant: np.ndarray
    stated: np.ndarray
    n_labels: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--sets", nargs="*", default=list(COLUMNS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines: dict[float, list[list[object]]] = defaultdict(list)
    for table in tables(args.folder, args.sets):
        for kind in ("stated", "joined"):
            if kind == "stated" and np.isnan(table.stated).any():
                continue
            runs = defaultdict(list)
            for wrong, sure in populations(table, kind, args.draws):
                for error in ERRORS:
                    runs[error].append(one(wrong, sure, error, len(runs[error])))
            for error, figures in runs.items():
                lines[error].append(line(f"{table.name}, {kind}", figures))
                print(error, *lines[error][-1], flush=True)
    head = ["labels", "rows", "wrong", "looked at", "kept", "published, betting", "kept", "best m"]
    head += ["published, normal", "kept", "knows all"]
    parts = [f"## At most {error:.0%} of all labels wrong\n\n{markdown_table(head, lines[error])}" for error in ERRORS]
    text = "\n\n".join(parts)
    print(text)
    if args.out:
        about = "\n\n".join(part.replace("\n", " ").strip() for part in __doc__.split("\n\n")[2:])
        means = (
            f"Means over {args.draws} draws (`python benchmarks/label_error.py FOLDER`); rows looked at as a share of "
            f"all rows, the sample included. Kept: draws of {args.draws} in which the promise was kept; it is given "
            f"with probability {CONFIDENCE:.0%}."
        )
        title = "# A promise about wrong labels, on real labels of real LLMs"
        args.out.write_text("\n\n".join([title, about, means, text]) + "\n", encoding="utf-8")


def tables(folder: Path, sets: list[str]) -> Iterator[Table]:
    for name in sets:
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            every: list[dict[str, Any]] = list(csv.DictReader(stream))
        for column in COLUMNS[name]:
            rows = [row for row in every if row[column]]
            place = {label: i for i, label in enumerate(sorted({row["label"] for row in rows}))}
            rows = [row for row in rows if row[column] in place]
            truth, meant = (np.array([place[row[c]] for row in rows]) for c in ("label", column))
            stated = np.array([float(row.get(f"{column}_confidence") or "nan") for row in rows])
            yield Table(f"{name} {column}", [row["text"] for row in rows], truth, meant, stated, len(place))


def populations(table: Table, kind: str, draws: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield which labels are wrong and how sure each is, in random order: ties have none."""
    n = len(table.texts)
    if kind == "joined":
        x = np.hstack([text_features(table.texts, width=100)[0], np.eye(table.n_labels)[table.meant]])
    for seed in range(draws):
        order = np.random.default_rng([seed, 1]).permutation(n)
        if kind == "stated":
            yield (table.meant != table.truth)[order], table.stated[order]
            continue
        gold, known = order[:GOLD], {table.texts[i] for i in order[:GOLD]}
        rest = np.array([i for i in order[GOLD:] if table.texts[i] not in known])
        model = LogisticRegression(C=3.0, max_iter=300).fit(x[gold], table.truth[gold])
        probs = model.predict_proba(x[rest])
        yield model.classes_[probs.argmax(1)] != table.truth[rest], probs.max(1)


def one(wrong: np.ndarray, sure: np.ndarray, error: float, seed: int) -> dict[str, float]:
    rows, figures = len(wrong), {"rows": len(wrong), "wrong": float(wrong.mean())}
    sample = draw(sure, error=error, confidence=CONFIDENCE, seed=seed)
    machine, truth, given = np.zeros(rows, int), wrong.astype(int), {}
    for _ in range(2):
        given |= {int(i): int(truth[i]) for i in plan(sample, machine, given).look}
    assert plan(sample, machine, given).stage == "done"
    seen = np.zeros(rows, bool)
    seen[list(given)] = True
    figures |= {"seen": seen.mean(), "kept": float((wrong & ~seen).mean() <= error)}
    for share in SHARES:
        for betting in (True, False):
            seen = published(wrong, sure, error, share, betting=betting, seed=seed)
            name = f"{'betting' if betting else 'normal'} {share}"
            figures |= {name: seen.mean(), f"{name} kept": float((wrong & ~seen).mean() <= error)}
    order = np.argsort(-sure, kind="stable")
    figures["least"] = 1 - float(np.searchsorted(np.cumsum(wrong[order]), int(error * rows) + 1)) / rows
    return figures


def published(
    wrong: np.ndarray, sure: np.ndarray, error: float, share: float, *, betting: bool, seed: int
) -> np.ndarray:
    """Return which rows the published rule looks at, (N,)."""
    rows = len(wrong)
    order = np.argsort(-sure, kind="stable")
    rank = np.empty(rows, int)
    rank[order] = np.arange(rows)
    drawn = np.random.default_rng([seed, 2]).integers(0, rows, round(share * rows))
    low, high = 0, rows  # rows below the threshold
    while low < high:
        middle = (low + high + 1) // 2
        below = (wrong[drawn] & (rank[drawn] < middle)).astype(float)
        normal = below.mean() + Z * below.std() / np.sqrt(len(below)) <= error
        good = _betting(below, error) if betting else normal
        low, high = (middle, high) if good else (low, middle - 1)
    seen = np.zeros(rows, bool)
    seen[drawn] = seen[order[low:]] = True
    return seen


def _betting(values: np.ndarray, error: float) -> bool:
    """Test by a capital process that the mean is at most `error` (Waudby-Smith and Ramdas, 2024, one-sided)."""
    n, i = len(values), np.arange(1, len(values) + 1)
    mean = (0.5 + np.cumsum(values)) / (i + 1)
    variance = np.r_[0.25, ((0.25 + np.cumsum((values - mean) ** 2)) / (i + 1))[:-1]]
    wealth = np.log(1 / (1 - CONFIDENCE))
    bets = np.minimum(np.sqrt(2 * wealth / (n * variance)), 0.9 / (1 - error))
    return bool(np.cumsum(np.log1p(bets * (error - values))).max() >= wealth)


def line(name: str, figures: list[dict[str, float]]) -> list[object]:
    mean = {key: float(np.mean([f[key] for f in figures])) for key in figures[0]}
    kept = {key: int(sum(f[key] for f in figures)) for key in figures[0] if key.endswith("kept")}
    best = min(mean[f"betting {share}"] for share in SHARES)
    return [
        name, f"{mean['rows']:.0f}", f"{mean['wrong']:.3f}", f"{mean['seen']:.3f}", kept["kept"],
        f"{mean['betting 0.2']:.3f}", kept["betting 0.2 kept"], f"{best:.3f}", f"{mean['normal 0.2']:.3f}",
        kept["normal 0.2 kept"], f"{mean['least']:.3f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
