"""Classification metrics from sums over groups of rows, for fast bootstraps: F1, MCC, AUROC, AUPRC, calibration error.

Nearly every metric is a function of sums over rows, so that a bootstrap is one matrix product. AUROC and AUPRC are not:
they are computed from how often each group was drawn, for many draws at once. numpy only; no task is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = dict[str, Array]  # name of a metric -> its value in each of B draws, (B,)
MIN_ROWS = 10  # macro_f1_min10 leaves out classes with fewer test rows
BINS = 15  # of confidence, in every calibration error and reliability diagram
LABEL_METRICS = (
    "accuracy", "macro_precision", "macro_recall", "macro_f1", "micro_f1", "weighted_f1", "macro_f1_min10", "mcc"
)  # fmt: skip
PATIENT_METRICS = ("patient_accuracy", "patient_macro_f1")
PROBABILITY_METRICS = ("ece", "auroc", "auprc")
_CELLS = 400_000  # weights in memory at once when ranks are drawn; as many fit the processor's cache


def group_codes(groups: Sequence[Any] | None, n: int) -> Array:
    """Return the number of each row's group, from 0, (N,); a row without a group is one by itself."""
    if groups is None:
        return np.arange(n)
    names = [f"row {i}" if g is None else f"group {g}" for i, g in enumerate(groups)]
    codes: Array = np.unique(names, return_inverse=True)[1]
    return codes


def group_sums(rows: Array, codes: Array) -> Array:
    """Add up the rows of each group: (N, C) -> (G, C)."""
    n_groups, width = int(codes.max()) + 1, rows.shape[1]
    at = (codes[:, None] * width + np.arange(width)).ravel()
    return np.bincount(at, np.asarray(rows, float).ravel(), n_groups * width).reshape(n_groups, width)


def draws(n_groups: int, n_bootstrap: int, seed: int) -> Iterator[Array]:
    """Draw groups with replacement; yield how often each was drawn, (B, G), in parts of at most 32 MB."""
    rng = np.random.default_rng(seed)
    part = max(1, 4_000_000 // n_groups)
    for begin in range(0, n_bootstrap, part):
        b = min(part, n_bootstrap - begin)
        yield np.array(
            [np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups) for _ in range(b)], float
        )


def label_sums(truth: Array, guess: Array, k: int, codes: Array) -> Array:
    """Count true positives, true and predicted rows of each of k labels in each group: (G, 3k)."""
    n_groups = int(codes.max()) + 1
    hits = truth == guess
    pairs = ((codes[hits], truth[hits]), (codes, truth), (codes, guess))
    counts = [np.bincount(c * k + v, minlength=n_groups * k).reshape(n_groups, k) for c, v in pairs]
    return np.hstack(counts).astype(float)


def worst_of_groups(values: Array, codes: Array) -> Array:
    """Return the largest value of each group's rows, (G,): a patient's worst grade."""
    worst = np.full(int(codes.max()) + 1, values.min())
    np.maximum.at(worst, codes, values)
    return worst


def label_values(sums: Array, often: Array | None = None) -> Values:
    """Compute LABEL_METRICS for each of B rows of `label_sums`, as scikit-learn defines them (zero_division=0).

    Macro scores average over the labels that occur in truth or predictions; a label without true positives has f1 0.

    Args:
        sums: (B, 3k).
        often: (k,) mask of the labels that `macro_f1_min10` averages over; without any it is left out.
    """
    hit, true, guess = np.split(sums, 3, axis=1)
    n = true.sum(1)
    f1 = 2 * hit / np.maximum(true + guess, 1)
    seen = (true + guess > 0).sum(1)
    accuracy = hit.sum(1) / n
    values = {
        "accuracy": accuracy,
        "macro_precision": (hit / np.maximum(guess, 1)).sum(1) / seen,
        "macro_recall": (hit / np.maximum(true, 1)).sum(1) / seen,
        "macro_f1": f1.sum(1) / seen,
        "micro_f1": accuracy,  # equal, since every row has exactly one label
        "weighted_f1": (f1 * true).sum(1) / n,
    }
    if often is not None and often.any():
        values["macro_f1_min10"] = f1[:, often].mean(1)
    spread = np.sqrt((n**2 - (guess**2).sum(1)) * (n**2 - (true**2).sum(1)))
    excess = hit.sum(1) * n - (true * guess).sum(1)
    return values | {"mcc": np.where(spread > 0, excess / np.maximum(spread, 1e-12), 0.0)}


def patient_values(sums: Array) -> Values:
    """Compute PATIENT_METRICS from `label_sums` of the worst labels of each group, (B, 3k)."""
    values = label_values(sums)
    return {name: values[name.removeprefix("patient_")] for name in PATIENT_METRICS}


def confidence_bins(confidence: Array, bins: int = BINS) -> Array:
    """Return the bin of equal width that each confidence lies in, 0 to bins - 1, (N,)."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def gap_sums(truth: Array, probs: Array, codes: Array, bins: int = BINS) -> Array:
    """Sum confidence minus hits of the top label, for each group and bin of confidence: (G, bins)."""
    n_groups, confidence = int(codes.max()) + 1, probs.max(1).astype(float)
    at = codes * bins + confidence_bins(confidence, bins)
    return np.bincount(at, confidence - (truth == probs.argmax(1)), n_groups * bins).reshape(n_groups, bins)


def set_sums(truth: Array, guess: Array, judged: Array, codes: Array) -> Array:
    """Count true positives, true and predicted labels (3k), exact rows and judged rows in each group: (G, 3k + 2).

    Labels that were not judged count nowhere: an exact row is right in all judged labels.
    """
    some = judged.any(1, keepdims=True)
    exact = ((truth == guess) | ~judged).all(1, keepdims=True) & some
    rows = [truth & guess & judged, truth & judged, guess & judged, exact, some]
    return group_sums(np.hstack(rows), codes)


def set_values(sums: Array, known: Array) -> Values:
    """Compute the metrics of sets of labels for each of B rows of `set_sums`, as scikit-learn defines them; (B,) each.

    Every label in `known` (k,), those that were judged in some row, counts in macro scores; a label that neither occurs
    nor is predicted has f1 0.
    """
    hit, true, guess = np.split(sums[:, :-2], 3, axis=1)
    f1 = 2 * hit / np.maximum(true + guess, 1)
    return {
        "accuracy": sums[:, -2] / np.maximum(sums[:, -1], 1),
        "macro_precision": (hit / np.maximum(guess, 1))[:, known].mean(1),
        "macro_recall": (hit / np.maximum(true, 1))[:, known].mean(1),
        "macro_f1": f1[:, known].mean(1),
        "micro_f1": 2 * hit.sum(1) / np.maximum((true + guess).sum(1), 1),
        "weighted_f1": (f1 * true).sum(1) / np.maximum(true.sum(1), 1),
    }


def rank_values(scores: Array, positive: Array, codes: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Prepare AUROC and AUPRC of one label against the rest, under drawn weights.

    AUROC is the share of (positive, negative) pairs in the right order, ties by half; AUPRC is the average precision:
    both as scikit-learn defines them, ties included.

    Args:
        scores: (N,) of the label; positive: (N,) mask of the rows that have it; codes: (N,) group numbers.

    Returns:
        A function of counts (B, G), how often each group was drawn, to AUROC (B,) and AUPRC (B,); nan where a draw has
        no positive, or (AUROC) no negative.
    """
    order = np.argsort(-scores, kind="stable")
    value, has = scores[order], positive[order].astype(bool)
    first = np.flatnonzero(np.r_[True, value[1:] != value[:-1]])  # of each run of ties
    run = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(value)]))[has]  # of each positive
    before, through = first[run], np.r_[first[1:], len(value)][run]  # rows before its run, and through it
    upto = np.r_[0, np.cumsum(has)]  # positives among the first rows
    tied = bool((through - before > 1).any())
    at, n_has = codes[order], int(has.sum())

    def some(counts: Array) -> tuple[Array, Array]:
        weight = np.ascontiguousarray(counts.T)[at]  # (N, B): contiguous in rows, so that sums over them are fast
        total = np.zeros((len(at) + 1, counts.shape[0]))
        np.cumsum(weight, axis=0, out=total[1:])
        of_positives = np.zeros((n_has + 1, counts.shape[0]))
        weight = weight[has]
        np.cumsum(weight, axis=0, out=of_positives[1:])
        all_of, positives = total[through], of_positives[upto[through]]
        negatives_above = all_of - positives
        if tied:  # a positive's own run counts by half
            negatives_above = (negatives_above + total[before] - of_positives[upto[before]]) / 2
        n_positive = of_positives[-1]
        n_negative = total[-1] - n_positive
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (weight * (n_negative - negatives_above)).sum(0) / (n_positive * n_negative)
            auprc = (weight * positives / np.maximum(all_of, 1)).sum(0) / n_positive
        return auroc, auprc

    def many(counts: Array) -> tuple[Array, Array]:
        part = max(1, _CELLS // len(at))
        parts = [some(counts[i : i + part]) for i in range(0, len(counts), part)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    return many


def label_ranks(probs: Array, has: Array, judged: Array, codes: Array) -> Callable[[Array], Values]:
    """Prepare `auroc` and `auprc` from probabilities: of the second of two labels, else the mean over labels.

    Labels that no row has, or every row, are left out of the means (of AUPRC only those that no row has), in each draw
    anew.

    Args:
        probs: (N, K); has: (N, K) mask of true labels; judged: (N, K) mask of judged labels; codes: (N,).

    Returns:
        A function of counts (B, G) to both, (B,) each, nan where undefined; to nothing where no label can be ranked.
    """
    of_labels = [1] if probs.shape[1] == 2 and judged.all() and (has.sum(1) == 1).all() else range(probs.shape[1])
    ranked = []
    for label in of_labels:
        rows = judged[:, label]
        if has[rows, label].any():
            ranked.append(rank_values(probs[rows, label], has[rows, label], codes[rows]))

    def values(counts: Array) -> Values:
        if not ranked:
            return {}
        both = np.array([rank(counts) for rank in ranked])  # (labels, 2, B)
        defined = ~np.isnan(both)
        with np.errstate(invalid="ignore"):
            means = np.where(defined, both, 0).sum(0) / defined.sum(0)
        return {"auroc": means[0], "auprc": means[1]}

    return values
