"""The arm "auto (macro-F1)" of real_noise.py: its choice, its tables, and the priors of both metrics."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

ARM = "auto_f1"  # `auto` with auto_metric="macro_f1"
SIZES = (50, 100, 200)
PRIORS = (("blend",) * 2, ("posterior",) * 2, ("loss_rank", "loss_rank with"), ("measured",) * 2)  # method, arm
MORE_PRIORS = (("weight",) * 2, ("clean_drop",) * 2)  # of the candidates that macro-F1 has besides


def choices(rows: Any, learn: Any, seed: int) -> dict[str, Any]:
    """Return the choice of `auto` by each metric, from one trial of all their candidates."""
    from hf_synth.correction.choice import candidates_of, choose_from, choose_method
    from hf_synth.correction.trial import try_methods

    metrics = {"auto": "accuracy", ARM: "macro_f1"}
    if rows.lineage is not None and rows.lineage.shows.any() and not rows.lineage.measurable:
        return {arm: choose_method(rows, learn, seed=seed, metric=metric) for arm, metric in metrics.items()}
    trial = try_methods(rows, learn, candidates_of(rows, "macro_f1"), seed=seed)
    return {arm: choose_from(trial, metric, candidates_of(rows, metric)) for arm, metric in metrics.items()}


def promised(choice: Any, labels: int, pair: list[float]) -> dict[str, Any]:
    """Return what the choice promised, over how many labels, and gold only's and its macro-F1 over these."""
    return {"method": choice.method, "loss": choice.guarantee, "labels": labels, "promised": pair}


def tables(runs: list[dict], mode: str, tuned: Any, markdown_table: Any) -> list[str]:
    """Return the tables of the arm in one group and mode."""
    arm, auto = f"{ARM} {mode}", f"auto {mode}"
    cells = collections.defaultdict(list)
    for r in runs:
        cells[tuple(r["run"][1:4])].append(r)
    rows = []
    for name in sorted({c[0] for c in cells}):
        for n in SIZES:
            gaps, some = [], [rs for c, rs in cells.items() if (c[0], c[2]) == (name, n)]
            for rs in some:
                mean = {a: np.mean([r["scores"][a] for r in rs], axis=0) for a in ("gold_only", "none", auto, arm)}
                better = np.maximum(mean["gold_only"], mean["none"])
                gaps.append([mean[arm][1] - better[1], mean[arm][1] - mean[auto][1], mean[arm][0] - mean[auto][0]])
            own = [r["choices_f1"][mode] for rs in some for r in rs]
            known = [c for c in own if c["loss"] is not None]
            broken = sum(c["promised"][1] < c["promised"][0] - c["loss"] - 1e-9 for c in known)
            loss = f"{100 * np.mean([c['loss'] for c in known]):.1f}" if known else ""
            points = (f"{100 * gap:+.1f}" for gap in np.mean(gaps, axis=0))
            tuned_here = "yes" if (runs[0]["run"][0], name) in tuned else "no"
            rows.append([name, n, tuned_here, *points, loss, f"{broken} of {len(known)}"])
    head = ["set", "gold", "constants set on it", "macro-F1: minus the better of gold only and raw"]
    head += ["macro-F1: minus auto", "accuracy: minus auto", "X", "promise broken"]
    counts = collections.Counter(r["choices_f1"][mode]["method"] for r in runs)
    chosen = ", ".join(f"{m} {n} times" for m, n in counts.most_common())
    return [
        "`auto` by macro-F1 (`--auto-metric macro_f1`), points. The promise is that macro-F1, over the labels of which "
        "gold has a row, is not below gold only by more than X with probability 90%:\n\n" + markdown_table(head, rows),
        f"It chose {chosen}.",
    ]


def fitted(results: list[dict], tuned: Any) -> str:
    """Return the priors of each method, from cells of tuned sets, in points of score as shares of 1.

    A cell's gain is the mean over its seeds; the noise of that mean is taken out of standard deviations, and each set
    counts alike. The first priors are of the mean of accuracy and macro-F1, the second ones of macro-F1.
    """
    cells = collections.defaultdict(list)
    for r in results:
        if (r["run"][0], r["run"][1]) in tuned:
            cells[tuple(r["run"][:4])].append(r)
    sets = collections.Counter(c[:2] for c in cells)
    weight = np.array([1 / sets[c[:2]] for c in cells])
    weight /= weight.sum()
    edge = np.minimum([np.mean([r["edge"] for r in runs]) for runs in cells.values()], 0.1)
    table = np.column_stack([np.ones(len(edge)), edge]) * np.sqrt(weight)[:, None]

    def prior(method: str, arm: str, first: int) -> str:
        gains = [
            [np.mean(r["scores"][arm][first:]) - np.mean(r["scores"]["gold_only"][first:]) for r in runs]
            for runs in cells.values()
        ]
        gain, noise = np.array([np.mean(g) for g in gains]), np.mean([np.var(g, ddof=1) / len(g) for g in gains])
        mean = float(weight @ gain)
        level, slope = np.linalg.lstsq(table, gain * np.sqrt(weight), rcond=None)[0]
        around = (weight @ (gain - mean) ** 2, weight @ (gain - level - slope * edge) ** 2)
        sd, spread = (float(np.sqrt(max(0.0, v - noise))) for v in around)
        return f'"{method}": Prior({mean:.3f}, {sd:.3f}, {level:.3f}, {slope:.2f}, {spread:.3f}),'

    lines = [prior(*pair, 0) for pair in PRIORS]
    return "\n".join([*lines, "macro-F1:", *(prior(*pair, 1) for pair in (*PRIORS, *MORE_PRIORS))])
