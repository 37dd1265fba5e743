"""Classification metrics from sums over rows: F1, MCC, AUROC, AUPRC, calibration error.

Nearly every metric is a function of sums over rows, so that its variance is computed from sums of groups. AUROC and
AUPRC are not: they come with the influence of each row. numpy only; no task is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
NOT_MENTIONED = "nm"  # a field of an entry that the text does not state


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


def label_values(sums: Array, often: Array | None = None, known: Array | None = None) -> Values:
    """Compute LABEL_METRICS for each of B rows of `label_sums`, as scikit-learn defines them (zero_division=0).

    A label without true positives has f1 0.

    Args:
        sums: (B, 3k).
        often: (k,) mask of the labels that `macro_f1_min10` averages over; without any it is left out.
        known: (k,) mask of the labels that macro scores average over; those that occur in truth or predictions, of
            each row of sums anew, when None.
    """
    hit, true, guess = np.split(sums, 3, axis=1)
    n = true.sum(1)
    f1 = 2 * hit / np.maximum(true + guess, 1)
    counted = true + guess > 0 if known is None else np.broadcast_to(known, true.shape)
    seen = counted.sum(1)
    accuracy = hit.sum(1) / n
    values = {
        "accuracy": accuracy,
        "macro_precision": (hit / np.maximum(guess, 1) * counted).sum(1) / seen,
        "macro_recall": (hit / np.maximum(true, 1) * counted).sum(1) / seen,
        "macro_f1": (f1 * counted).sum(1) / seen,
        "micro_f1": accuracy,  # equal, since every row has exactly one label
        "weighted_f1": (f1 * true).sum(1) / n,
    }
    if often is not None and often.any():
        values["macro_f1_min10"] = f1[:, often].mean(1)
    spread = np.sqrt(np.maximum(0, n**2 - (guess**2).sum(1)) * np.maximum(0, n**2 - (true**2).sum(1)))
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


def field_sums(truth: Sequence[str], guess: Sequence[str], fields: Sequence[str]) -> Array:
    """Count the phrases of targets that are tables: right, true and written ones, (N, 3 (k + 1)).

    A target has a line for each entry, with k fields between bars. The first k columns of each third count a field by
    itself (the i2b2 2009 challenge: "vertical"); the last one counts all fields of an entry together ("horizontal"): a
    phrase is right there only in an entry of the right name. Phrases are equal but for case and blanks. The challenge
    compares their places in the note too, which a target does not hold.
    """
    rows = np.zeros((len(truth), 3, len(fields) + 1))
    for i, texts in enumerate(zip(truth, guess, strict=True)):
        true, said = (_phrases(text, len(fields)) for text in texts)
        for j, (a, b) in enumerate(zip(true, said, strict=True)):
            rows[i, :, j] = (a & b).total(), a.total(), b.total()
    return rows.reshape(len(truth), -1)


def _phrases(text: str, k: int) -> list[Counter[tuple[str, ...]]]:
    """Return the phrases of each of k fields of a target, then those of all its entries."""
    found: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(k + 1)]
    for line in text.splitlines():
        entry = [" ".join(field.casefold().split()) for field in line.split("|")][:k]
        for place, phrase in enumerate(entry):
            if phrase and phrase != NOT_MENTIONED:
                found[place][phrase,] += 1
                found[k][entry[0], str(place), phrase] += 1
    return found


def field_values(sums: Array, fields: Sequence[str]) -> Values:
    """Compute the F-measures of fields for each of B rows of `field_sums`, (B,) each.

    They are of all rows together (the challenge: "system-level"): `horizontal_phrase_f1`, and `vertical_phrase_f1_m`
    and the like for each field.
    """
    hit, true, guess = np.split(sums, 3, axis=1)
    f1 = 2 * hit / np.maximum(true + guess, 1)
    names = ["horizontal_phrase_f1", *(f"vertical_phrase_f1_{field}" for field in fields)]
    return dict(zip(names, [f1[:, -1], *f1[:, :-1].T], strict=True))


@dataclass(frozen=True)
class Ranks:
    """AUROC and AUPRC of one label against the rest, and what each row adds to them.

    Args:
        auroc: share of (positive, negative) pairs in the right order, ties by half.
        auprc: average precision.
        auroc_effects: influence of each row, (N,): the derivative of the score by the row's weight; they add up to 0.
        auprc_effects: the same of AUPRC.
        positives: rows that have the label.
        negatives: rows that do not.
    """

    auroc: float
    auprc: float
    auroc_effects: Array
    auprc_effects: Array
    positives: int
    negatives: int


def rank_values(scores: Array, positive: Array) -> Ranks:
    """Compute AUROC and AUPRC of one label, both as scikit-learn defines them, ties included.

    Args:
        scores: (N,) of the label.
        positive: (N,) mask of the rows that have it.

    Returns:
        Both scores, nan where undefined: without a positive row, or (AUROC) without a negative one.
    """
    order, n = np.argsort(-scores, kind="stable"), len(scores)
    value, has = scores[order], positive[order].astype(float)
    first = np.flatnonzero(np.r_[True, value[1:] != value[:-1]])  # of each run of ties
    through = np.r_[first[1:], n]
    run = np.repeat(np.arange(len(first)), through - first)
    positives, negatives = (np.r_[0.0, np.cumsum(rows)] for rows in (has, 1 - has))
    n_positive, n_negative = float(positives[-1]), float(negatives[-1])
    before, after = positives[first], positives[through]
    right_of_negative = ((before + after) / 2)[run]  # positives above a row, ties by half
    left_of_positive = n_negative - ((negatives[first] + negatives[through]) / 2)[run]  # negatives below it
    precision, in_run = after / through, after - before
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (has * left_of_positive).sum() / (n_positive * n_negative)
        auprc = (in_run * precision).sum() / n_positive
        pairs = np.where(
            has > 0,
            (left_of_positive / n_negative - auroc) / n_positive,
            (right_of_negative / n_positive - auroc) / n_negative,
        )
        # the precision of each run at a row or below it moves by (has - precision) / rows through it
        own, all_of = (np.cumsum((rows / through)[::-1])[::-1][run] for rows in (in_run, in_run * precision))
        moves = (has * (own + precision[run] - auprc) - all_of) / n_positive
    effects = np.empty((2, n))
    effects[:, order] = pairs, moves
    return Ranks(float(auroc), float(auprc), effects[0], effects[1], int(n_positive), int(n_negative))


def ranked_labels(has: Array, judged: Array) -> Sequence[int]:
    """Return the labels that are ranked: the second of two labels of which each row has one, else all, (N, K) masks."""
    return [1] if has.shape[1] == 2 and judged.all() and (has.sum(1) == 1).all() else range(has.shape[1])


def label_ranks(probs: Array, has: Array, judged: Array) -> dict[int, Ranks]:
    """Compute the ranks of each label that some row has: of the second of two labels alone, else of all.

    Args:
        probs: (N, K).
        has: (N, K) mask of true labels.
        judged: (N, K) mask of judged labels; a row without a judgment has influence 0.
    """
    found = {}
    for label in ranked_labels(has, judged):
        rows = judged[:, label]
        if has[rows, label].any():
            ranks = rank_values(probs[rows, label], has[rows, label])
            effects = np.zeros((2, len(probs)))
            effects[:, rows] = ranks.auroc_effects, ranks.auprc_effects
            found[label] = replace(ranks, auroc_effects=effects[0], auprc_effects=effects[1])
    return found


def rank_means(ranks: Mapping[int, Ranks]) -> dict[str, float]:
    """Return the means of AUROC and AUPRC over the labels for which they are defined."""
    table = {name: [getattr(r, name) for r in ranks.values()] for name in ("auroc", "auprc")}
    return {name: float(np.nanmean(found)) for name, found in table.items() if not np.isnan(found).all()}
