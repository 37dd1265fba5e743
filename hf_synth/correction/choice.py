"""`auto`: choice of the correction method by the score of a linear head on held-out gold.

Each method corrects the rows without one fold of gold at a time, a head is trained on the result, and it is scored on
that fold and on the audited rows set aside with it. The more robust method stands unless another is clearly better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import part_of, relative_weights
from hf_synth.correction.crossfit import FOLDS, Learn, Rows, decide, folds
from hf_synth.correction.policy import METHODS, apply, fit, settle, weaker
from hf_synth.evaluation.metrics import group_codes
from hf_synth.task.labels import Floats, Ints

CLEARLY = 1.5  # standard errors by which a method must beat a more robust one
PREFER = ("posterior", "ensemble", "weight", "clean_drop", "threshold", "agree", "none", "argmax")  # most robust first


@dataclass(frozen=True)
class Choice:
    """The chosen method and its grounds.

    Args:
        method: the chosen one.
        scores: each method's score on held-out rows: the mean of accuracy and balanced accuracy of a linear head.
        behind: each method's distance to the chosen one, and the standard error of that difference.
        refused: methods that rely on a corrector weaker than the generator, and were no candidates.
        why: a sentence.
        opinions: of the models trained for the choice, on the synthetic rows, by their source (see `decide`).
    """

    method: str
    scores: Mapping[str, float]
    behind: Mapping[str, tuple[float, float]]
    why: str
    refused: tuple[str, ...] = ()
    opinions: Mapping[str, Sequence[Floats]] = field(default_factory=dict, repr=False, compare=False)

    def figures(self) -> dict[str, Any]:
        """Return the grounds as figures of a policy."""
        behind = {method: list(distance) for method, distance in self.behind.items()}
        return {"auto_scores": dict(self.scores), "auto_behind": behind, "auto_why": self.why}


def choose(
    hits: Mapping[str, npt.ArrayLike],
    labels: npt.ArrayLike,
    *,
    prefer: Sequence[str],
    groups: Sequence[Any] | None = None,
    weights: npt.ArrayLike | None = None,
) -> Choice:
    """Choose a method by the score on held-out rows of a linear head trained on its rows.

    The preferred method stands unless another is better by CLEARLY standard errors of the paired difference, since a
    choice among noise would only add noise. The standard error is that of a mean of clusters (patients), which for rows
    without groups is the usual one.

    Args:
        hits: for each method, whether the head is right on each row, (M,), or a mean over several heads.
        labels: of those rows, (M,).
        prefer: methods in order of robustness.
        groups: patients of those rows, (M,); each row by itself when None.
        weights: of those rows, (M,), if they were drawn with unequal probabilities.
    """
    truth = np.asarray(labels)
    counts = np.bincount(truth)
    seen = int((counts > 0).sum())
    row_weight = 0.5 + 0.5 * len(truth) / (seen * counts[truth])
    if weights is not None:
        drawn = np.asarray(weights, float)
        row_weight = row_weight * drawn / drawn.mean()
    worth = {m: np.asarray(h, float) * row_weight for m, h in hits.items()}
    scores = {m: float(w.mean()) for m, w in worth.items()}
    order = [m for m in prefer if m in worth]
    codes = group_codes(groups, len(truth))
    n_groups = int(codes.max()) + 1

    def error(gain: Floats) -> float:
        """Compute the standard error of a mean over clusters (Liang and Zeger, 1986), by n - 1 of n of them."""
        if n_groups < 2:
            return 0.0
        sums = np.bincount(codes, gain - gain.mean())
        return float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum()) / len(gain))

    chosen = order[0]
    for method in order[1:] if n_groups > 1 else ():  # one patient has no standard error
        gain = worth[method] - worth[chosen]
        if gain.mean() > CLEARLY * error(gain):
            chosen = method
    gaps = {m: worth[chosen] - worth[m] for m in order}
    best = max(order, key=lambda m: scores[m])
    patients = "" if n_groups == len(truth) else f" of {n_groups} groups"
    why = f"{chosen} scores {scores[chosen]:.3f} on {len(truth)} held-out rows{patients}" + (
        "" if best == chosen else f"; {best} scores {scores[best]:.3f}, not clearly better"
    )
    behind = {m: (round(float(g.mean()), 4), round(error(g), 4)) for m, g in gaps.items()}
    return Choice(chosen, {m: round(s, 4) for m, s in scores.items()}, behind, why)


def choose_method(
    rows: Rows,
    learn: Learn,
    *,
    opinions: tuple[Floats, Floats] | None = None,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    coverage: float | None = None,
    coverage_by_class: bool = False,
) -> Choice:
    """Choose a method by the score of a model trained on its rows, on gold and audited rows that had no part in it.

    A method that relies on the corrector alone is no candidate where the corrector is weaker than the generator.

    Args:
        learn: a fast learner: it is called some hundred times.
        opinions: of one trained model on gold that it never saw, (M, K), and on the rows, (N, K); it then decides on
            labels in place of models trained by `learn`.
        methods: the candidates.
        coverage, coverage_by_class: of conformal sets, as for `policy.fit`.
    """
    fold = folds(rows.truth, rows.groups, FOLDS, seed)
    audited = np.array(sorted(rows.audited), dtype=np.int64)
    theirs = [None if rows.row_groups is None else rows.row_groups[i] for i in audited]
    groups = [*(rows.groups or [None] * len(fold)), *theirs]
    audited_fold = _audited_folds(fold, groups, seed)
    truth = np.concatenate([rows.truth, np.array([rows.audited[i] for i in audited.tolist()], dtype=np.int64)])
    hits = {m: np.zeros(len(truth)) for m in methods}
    options: Any = {"coverage": coverage, "coverage_by_class": coverage_by_class, "bounds": False}
    weak: dict[str, list[bool]] = {}
    by_source: dict[str, list[Floats]] = {}
    for k in range(int(fold.max()) + 1):
        inside, held, aside = np.flatnonzero(fold != k), np.flatnonzero(fold == k), audited[audited_fold == k]
        at = np.concatenate([held, len(fold) + np.flatnonzero(audited_fold == k)])
        part = replace(rows, audited=part_of(rows.audited, sorted(set(rows.audited) - set(aside.tolist()))))
        labels: Any = {"llm_label": rows.meant, "gold_label": rows.truth[inside], "audited": part.audited}
        known: dict[str, Any] = {}
        for method in methods:
            if opinions is None:  # other halves in each fold, so that averaged opinions differ
                policy, corrected = decide(
                    part, learn, method, inside=inside, seed=seed + 104729 * (k + 1), known=known, **options
                )
            else:
                policy = fit(method, pred_probs=opinions[1], gold_probs=opinions[0][inside], **labels, **options)
                corrected = settle(apply(policy, rows.meant, opinions[1]), rows.meant, part.audited)
            if method == "argmax":
                weak.setdefault(method, []).append(weaker(policy.figures))
            used = np.setdiff1d(np.flatnonzero(corrected.weight > 0), aside)
            probs = learn(inside, used, corrected.probs[used] * corrected.weight[used, None])(held, aside)
            hits[method][at] = np.concatenate(probs).argmax(1) == truth[at]
        for source, (_, of_rows) in known.items():
            by_source.setdefault(source, []).append(of_rows)
    refused = tuple(m for m, in_folds in weak.items() if np.mean(in_folds) >= 0.5)
    candidates = {m: h for m, h in hits.items() if m not in refused}
    relative = relative_weights(rows.audited)
    weights = [*np.ones(len(fold)), *(relative[i] for i in audited.tolist())]
    choice = choose(candidates or hits, truth, prefer=PREFER, groups=groups, weights=weights)
    return replace(choice, refused=refused, opinions=by_source)


def _audited_folds(fold: Ints, groups: Sequence[Any], seed: int) -> Ints:
    """Assign audited rows to the folds of gold, (A,): all of a patient to the fold of the patient's gold, or to one.

    Args:
        fold: of gold rows, (M,).
        groups: of gold rows and then of audited rows, (M + A,).
    """
    place: dict[Any, int] = {}
    at = [place.setdefault(("row", i) if g is None else g, len(place)) for i, g in enumerate(groups[len(fold) :])]
    drawn = np.random.default_rng(seed).permutation(len(place)) % (int(fold.max()) + 1)
    of_gold = {g: int(f) for g, f in zip(groups, fold, strict=False) if g is not None}
    theirs = zip(groups[len(fold) :], drawn[at], strict=True)
    return np.array([of_gold.get(g, int(f)) for g, f in theirs], dtype=np.int64)
