"""Predictions and true labels prepared for scores: sums by group, metrics as functions of them, bootstrap draws.

`evaluation.score` reads one `Prepared`; comparisons and subgroups join several of the same groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.evaluation import metrics
from hf_synth.evaluation.statistics import interval
from hf_synth.models.text2text import text_scores
from hf_synth.task.task import Task

Array = npt.NDArray[Any]
RANKED = 100_000_000  # most rows x labels x draws whose ranks are drawn: about two seconds of a core


@dataclass(frozen=True)
class Prepared:
    """What the scores of one kind of task are computed from.

    Args:
        sums: of each group, (G, C).
        of_sums: metrics as a function of sums, (B, C) -> (B,) each.
        of_counts: metrics as a function of how often each group is drawn, (B, G) -> (B,) each; none from labels.
        ranked: rows x labels that `of_counts` ranks.
        more: other fields of Scores.
    """

    sums: Array
    of_sums: Callable[[Array], metrics.Values]
    of_counts: Callable[[Array], metrics.Values]
    ranked: int
    more: dict[str, Any]


def prepare(
    task: Task, predicted: Any, labels: Any, groups: Sequence[Any] | None = None, *, judged: Any = None
) -> Prepared:
    """Prepare the metrics of predictions against true labels; arguments and errors are those of `evaluation.score`."""
    n = len(labels)
    if not n or len(predicted) != n or (groups is not None and len(groups) != n):
        raise ColumnError("scores need a prediction, and a group where there are groups, for each label; at least one")
    codes = metrics.group_codes(groups, n)
    if task.kind == "text2text":
        return _prepare_texts(predicted, labels, codes)
    if task.kind == "multi_label":
        return _prepare_sets(task, predicted, labels, judged, codes)
    grouped = groups is not None and any(g is not None for g in groups)
    return _prepare_labels(task, predicted, labels, codes, grouped=grouped)


def values_of(prepared: Prepared, counts: Array) -> metrics.Values:
    """Compute each metric under counts (B, G) of how often each group is drawn; (B,) each, without undefined ones."""
    values = prepared.of_sums(counts @ prepared.sums) | prepared.of_counts(counts)
    return {name: value for name, value in values.items() if not np.isnan(value).all()}


def drawn_values(prepared: Prepared, n_bootstrap: int, seed: int, *, n_ranks: int | None = None) -> metrics.Values:
    """Draw each metric by resampling groups, (B,) each; those of ranks from the first `n_ranks` draws only."""
    left, parts = n_bootstrap if n_ranks is None else n_ranks, []
    for counts in metrics.draws(len(prepared.sums), n_bootstrap, seed):
        ranks = prepared.of_counts(counts[:left]) if left else {}
        parts.append(prepared.of_sums(counts @ prepared.sums) | ranks)
        left = max(0, left - len(counts))
    names = parts[0] if parts else ()
    drawn = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
    return {name: value for name, value in drawn.items() if not np.isnan(value).all()}


def metric_interval(metric: str, drawn: Any, n_groups: int, *, difference: bool = False) -> tuple[float, float]:
    """Return the 95% interval of draws; of a single group, which cannot be resampled, the metric's whole range."""
    if n_groups > 1:
        return interval(drawn, n_groups)
    low, high = -1.0 if metric == "mcc" else 0.0, 1.0
    return (low - high, high - low) if difference else (low, high)


def no_ranks(counts: Array) -> metrics.Values:
    """Return no metric: the `of_counts` of predictions without probabilities."""
    return {}


def label_parts(true: Array, guess: Array, k: int, codes: Array, graded: bool) -> Array:
    """Return the sums of rows, and beside them those of groups' worst labels where the task is graded."""
    sums = metrics.label_sums(true, guess, k, codes)
    if not graded:
        return sums
    worst, worst_guess = metrics.worst_of_groups(true, codes), metrics.worst_of_groups(guess, codes)
    return np.hstack([sums, metrics.label_sums(worst, worst_guess, k, np.arange(len(sums)))])


def label_metrics(sums: Array, k: int, often: Array, graded: bool, *, calibrated: bool) -> metrics.Values:
    """Compute the metrics of the sums of `label_parts`, (B, C); calibrated: sums of gaps stand after them.

    Args:
        often: (k,) labels that `macro_f1_min10` averages over.
        graded: whether the sums of groups' worst labels stand after those of rows.
    """
    values = metrics.label_values(sums[:, : 3 * k], often)
    if graded:
        values |= metrics.patient_values(sums[:, 3 * k : 6 * k])
    if calibrated:
        values["ece"] = np.abs(sums[:, (6 if graded else 3) * k :]).sum(1) / sums[:, k : 2 * k].sum(1)
    return values


def _prepare_labels(task: Task, predicted: Any, labels: Any, codes: Array, *, grouped: bool) -> Prepared:
    k, true, predicted = len(task.labels), np.asarray(labels, dtype=np.int64), np.asarray(predicted)
    probs = predicted if predicted.ndim == 2 else None
    guess = predicted.argmax(1) if probs is not None else predicted.astype(np.int64)
    if probs is not None and probs.shape[1] != k:
        raise ColumnError(f"scores need probabilities over the {k} labels of task {task.full_name!r}")
    if min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= k:
        raise ColumnError(f"a label or prediction is not an index into the {k} labels of task {task.full_name!r}")
    often = np.bincount(true, minlength=k) >= metrics.MIN_ROWS
    graded = grouped and bool(set(metrics.PATIENT_METRICS) & set(task.metrics))
    sums, has = label_parts(true, guess, k, codes, graded), np.eye(k, dtype=bool)[true]
    rows = {"labels": true, "predictions": guess, "groups": codes}
    more: dict[str, Any] = {name: tuple(values.tolist()) for name, values in rows.items()}
    more["confusion"] = np.bincount(true * k + guess, minlength=k * k).reshape(k, k).tolist()
    more["per_class"] = _per_class(task, sums.sum(0)[: 3 * k], probs, has, np.ones_like(has))
    ranks: Callable[[Array], metrics.Values] = no_ranks
    if probs is not None:
        sums = np.hstack([sums, metrics.gap_sums(true, probs, codes)])
        ranks = metrics.label_ranks(probs, has, np.ones_like(has), codes)

    def of_sums(sums: Array) -> metrics.Values:
        return label_metrics(sums, k, often, graded, calibrated=probs is not None)

    return Prepared(sums, of_sums, ranks, 0 if probs is None else len(true) * (k if k > 2 else 1), more)


def _prepare_sets(task: Task, predicted: Any, labels: Any, judged: Any, codes: Array) -> Prepared:
    k, true, predicted = len(task.labels), np.asarray(labels) > 0.5, np.asarray(predicted)
    known = np.ones_like(true) if judged is None else np.asarray(judged) > 0.5
    if true.shape != predicted.shape or true.ndim != 2 or true.shape[1] != k or known.shape != true.shape:
        raise ColumnError(f"scores need a value for each of the {k} labels of task {task.full_name!r} in every row")
    if not known.any():
        raise ColumnError(f"no label of task {task.full_name!r} was judged in these rows: there is nothing to score")
    sums, probs = metrics.set_sums(true, predicted > 0.5, known, codes), None
    ranks: Callable[[Array], metrics.Values] = no_ranks
    if not np.isin(predicted, (0, 1)).all():
        probs, ranks = predicted, metrics.label_ranks(predicted, true, known, codes)
    per_class = _per_class(task, sums.sum(0)[:-2], probs, true, known)
    for label, judgments in zip(task.labels, known.sum(0), strict=True):
        per_class[label]["judged"] = int(judgments)
    some = np.asarray(known.any(0))
    more = {"per_class": per_class, "confusion": []}
    return Prepared(sums, lambda s: metrics.set_values(s, some), ranks, 0 if probs is None else true.size, more)


def _prepare_texts(predicted: Any, labels: Any, codes: Array) -> Prepared:
    scores = text_scores(predicted, labels)
    sums = metrics.group_sums(np.column_stack([*scores.values(), np.ones(len(codes))]), codes)

    def of_sums(sums: Array) -> metrics.Values:
        return {name: sums[:, i] / sums[:, -1] for i, name in enumerate(scores)}

    return Prepared(sums, of_sums, no_ranks, 0, {"per_class": {}, "confusion": []})


def _per_class(task: Task, sums: Array, probs: Array | None, has: Array, judged: Array) -> dict[str, dict[str, float]]:
    hit, true, guess = np.split(sums, 3)
    scores: dict[str, dict[str, float]] = {}
    for i, label in enumerate(task.labels):
        scores[label] = {
            "precision": float(hit[i] / max(1, guess[i])),
            "recall": float(hit[i] / max(1, true[i])),
            "f1": float(2 * hit[i] / max(1, true[i] + guess[i])),
            "support": int(true[i]),
        }
        rows = judged[:, i]
        if probs is not None and 0 < has[rows, i].sum() < rows.sum():
            ranks = metrics.rank_values(probs[rows, i], has[rows, i], np.arange(rows.sum()))(np.ones((1, rows.sum())))
            scores[label] |= {"auroc": float(ranks[0][0]), "auprc": float(ranks[1][0])}
    return scores
