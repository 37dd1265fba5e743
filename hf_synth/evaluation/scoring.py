"""Predictions beside what is true, made ready for scores: sums of each group, and the metrics as functions of them.

`evaluation.score` reads values and draws from one `Judged`; comparisons and subgroups join several of the same groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.evaluation.metrics import (
    MIN_ROWS,
    PATIENT_METRICS,
    Values,
    draws,
    gap_sums,
    group_codes,
    group_sums,
    label_ranks,
    label_sums,
    label_values,
    patient_values,
    rank_values,
    set_sums,
    set_values,
    worst_of_groups,
)
from hf_synth.models.text2text import text_scores
from hf_synth.task.task import Task

Array = npt.NDArray[Any]
RANKED = 100_000_000  # rows x labels x draws that ranks are drawn from: about two seconds of a core


@dataclass(frozen=True)
class Judged:
    """What scores need of one kind of task.

    Args:
        sums: of each group, (G, C).
        of_sums: metrics as a function of sums, (B, C) -> (B,) each.
        of_counts: metrics as a function of how often each group is drawn, (B, G) -> (B,) each; none from labels.
        ranked: rows x labels that `of_counts` looks at.
        more: other fields of Scores.
    """

    sums: Array
    of_sums: Callable[[Array], Values]
    of_counts: Callable[[Array], Values]
    ranked: int
    more: dict[str, Any]


def judge(
    task: Task, predicted: Any, labels: Any, groups: Sequence[Any] | None = None, *, judged: Any = None
) -> Judged:
    """Prepare the metrics of predictions against true labels.

    Args:
        predicted: probabilities (N, K) or label indices (N,); multi_label: probabilities, of which those above 0.5 are
            labels, or 0 and 1 (N, K); text2text: N texts.
        labels: true label indices, (N,); multi_label: 0 and 1 (N, K); text2text: N texts.
        groups: what rows are drawn together by, (N,); each row by itself when None.
        judged: of a multi_label task, which labels somebody judged, 1 or 0 (N, K); all when None.

    Raises:
        ColumnError: shapes do not fit, an index is not one of the task's labels, or nobody judged anything.
    """
    n = len(labels)
    if not n or len(predicted) != n or (groups is not None and len(groups) != n):
        raise ColumnError("scores need as many predictions as labels, and groups where given, at least one")
    codes = group_codes(groups, n)
    if task.kind == "text2text":
        return _judge_texts(predicted, labels, codes)
    if task.kind == "multi_label":
        return _judge_sets(task, predicted, labels, judged, codes)
    grouped = groups is not None and any(g is not None for g in groups)
    return _judge_labels(task, predicted, labels, codes, grouped=grouped)


def values_of(found: Judged, counts: Array) -> Values:
    """Compute each metric under counts (B, G) of how often each group is drawn; (B,) each, without undefined ones."""
    values = found.of_sums(counts @ found.sums) | found.of_counts(counts)
    return {name: value for name, value in values.items() if not np.isnan(value).all()}


def drawn_values(found: Judged, n_bootstrap: int, seed: int, *, n_ranks: int | None = None) -> Values:
    """Draw each metric by resampling groups, (B,) each; those of ranks from the first `n_ranks` draws only."""
    left, parts = n_bootstrap if n_ranks is None else n_ranks, []
    for counts in draws(len(found.sums), n_bootstrap, seed):
        ranks = found.of_counts(counts[:left]) if left else {}
        parts.append(found.of_sums(counts @ found.sums) | ranks)
        left = max(0, left - len(counts))
    names = parts[0] if parts else ()
    drawn = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
    return {name: value for name, value in drawn.items() if not np.isnan(value).all()}


def _no_ranks(counts: Array) -> Values:
    return {}


def _judge_labels(task: Task, predicted: Any, labels: Any, codes: Array, *, grouped: bool) -> Judged:
    k, true, predicted = len(task.labels), np.asarray(labels, dtype=np.int64), np.asarray(predicted)
    probs = predicted if predicted.ndim == 2 else None
    guess = predicted.argmax(1) if probs is not None else predicted.astype(np.int64)
    if probs is not None and probs.shape[1] != k:
        raise ColumnError(f"scores need probabilities over the {k} labels of task {task.full_name!r}")
    if min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= k:
        raise ColumnError(f"a label or prediction is not an index into the {k} labels of task {task.full_name!r}")
    often = np.bincount(true, minlength=k) >= MIN_ROWS
    graded = grouped and bool(set(PATIENT_METRICS) & set(task.metrics))
    sums, has = label_parts(true, guess, k, codes, graded), np.eye(k, dtype=bool)[true]
    rows = {"labels": true, "predictions": guess, "groups": codes}
    more: dict[str, Any] = {name: tuple(values.tolist()) for name, values in rows.items()}
    more["confusion"] = np.bincount(true * k + guess, minlength=k * k).reshape(k, k).tolist()
    more["per_class"] = _per_class(task, sums.sum(0)[: 3 * k], probs, has, np.ones_like(has))
    ranks: Callable[[Array], Values] = _no_ranks
    if probs is not None:
        sums = np.hstack([sums, gap_sums(true, probs, codes)])
        ranks = label_ranks(probs, has, np.ones_like(has), codes)

    def of_sums(sums: Array) -> Values:
        return label_metrics(sums, k, often, graded, calibrated=probs is not None)

    return Judged(sums, of_sums, ranks, 0 if probs is None else len(true) * (k if k > 2 else 1), more)


def label_parts(true: Array, guess: Array, k: int, codes: Array, graded: bool) -> Array:
    """Give the sums of rows, and beside them those of groups' worst labels where the task is graded."""
    sums = label_sums(true, guess, k, codes)
    if not graded:
        return sums
    worst, said = worst_of_groups(true, codes), worst_of_groups(guess, codes)
    return np.hstack([sums, label_sums(worst, said, k, np.arange(len(sums)))])


def label_metrics(sums: Array, k: int, often: Array, graded: bool, *, calibrated: bool) -> Values:
    """Compute the metrics of sums that `label_parts` gave, (B, C); calibrated: sums of gaps stand after them.

    Args:
        often: (k,) labels that `macro_f1_min10` averages over.
        graded: whether the sums of groups' worst labels stand after those of rows.
    """
    found = label_values(sums[:, : 3 * k], often)
    if graded:
        found |= patient_values(sums[:, 3 * k : 6 * k])
    if calibrated:
        found["ece"] = np.abs(sums[:, (6 if graded else 3) * k :]).sum(1) / sums[:, k : 2 * k].sum(1)
    return found


def _judge_sets(task: Task, predicted: Any, labels: Any, judged: Any, codes: Array) -> Judged:
    k, true, said = len(task.labels), np.asarray(labels) > 0.5, np.asarray(predicted)
    known = np.ones_like(true) if judged is None else np.asarray(judged) > 0.5
    if true.shape != said.shape or true.ndim != 2 or true.shape[1] != k or known.shape != true.shape:
        raise ColumnError(f"scores need a value for each of the {k} labels of task {task.full_name!r} in every row")
    if not known.any():
        raise ColumnError(f"nobody judged any label of task {task.full_name!r} in these rows")
    sums, probs = set_sums(true, said > 0.5, known, codes), None
    ranks: Callable[[Array], Values] = _no_ranks
    if not np.isin(said, (0, 1)).all():
        probs, ranks = said, label_ranks(said, true, known, codes)
    per_class = _per_class(task, sums.sum(0)[:-2], probs, true, known)
    for label, judgments in zip(task.labels, known.sum(0), strict=True):
        per_class[label]["judged"] = int(judgments)
    seen = np.asarray(known.any(0))
    more = {"per_class": per_class, "confusion": []}
    return Judged(sums, lambda s: set_values(s, seen), ranks, 0 if probs is None else true.size, more)


def _judge_texts(predicted: Any, labels: Any, codes: Array) -> Judged:
    found = text_scores(predicted, labels)
    sums = group_sums(np.column_stack([*found.values(), np.ones(len(codes))]), codes)

    def of_sums(sums: Array) -> Values:
        return {name: sums[:, i] / sums[:, -1] for i, name in enumerate(found)}

    return Judged(sums, of_sums, _no_ranks, 0, {"per_class": {}, "confusion": []})


def _per_class(task: Task, sums: Array, probs: Array | None, has: Array, judged: Array) -> dict[str, dict[str, float]]:
    hit, true, said = np.split(sums, 3)
    found: dict[str, dict[str, float]] = {}
    for i, label in enumerate(task.labels):
        found[label] = {
            "precision": float(hit[i] / max(1, said[i])),
            "recall": float(hit[i] / max(1, true[i])),
            "f1": float(2 * hit[i] / max(1, true[i] + said[i])),
            "support": int(true[i]),
        }
        rows = judged[:, i]
        if probs is not None and 0 < has[rows, i].sum() < rows.sum():
            ranks = rank_values(probs[rows, i], has[rows, i], np.arange(rows.sum()))(np.ones((1, rows.sum())))
            found[label] |= {"auroc": float(ranks[0][0]), "auprc": float(ranks[1][0])}
    return found
