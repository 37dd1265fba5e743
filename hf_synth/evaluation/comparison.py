"""Paired comparison of two models on the same rows: difference, bootstrap interval over groups, McNemar test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.metrics import (
    MIN_ROWS,
    PATIENT_METRICS,
    PROBABILITY_METRICS,
    draws,
    gap_sums,
    label_ranks,
    set_sums,
    set_values,
)
from hf_synth.evaluation.scoring import (
    RANKED,
    Prepared,
    label_metrics,
    label_parts,
    metric_interval,
    no_ranks,
    values_of,
)
from hf_synth.evaluation.statistics import mcnemar
from hf_synth.models.text2text import TEXT_METRICS


@dataclass(frozen=True)
class Difference:
    """Score of one model minus that of another on the same rows.

    Args:
        metric: name of the score.
        value: a's minus b's.
        ci95: 95% interval of the paired bootstrap over groups.
        n: number of rows.
        p_mcnemar: p-value of the exact McNemar test of the rows that each model has right (sets: in all judged labels),
            whatever the metric; it treats rows as independent.
    """

    metric: str
    value: float
    ci95: tuple[float, float]
    n: int
    p_mcnemar: float


def compare(a: Scores, b: Scores, metric: str = "macro_f1", *, n_bootstrap: int = 1000, seed: int = 0) -> Difference:
    """Compare two models on the same rows: the difference a - b with its interval by a paired bootstrap over groups.

    Args:
        metric: one that both have; auroc, auprc and ece need scores from probabilities.
        n_bootstrap: draws; fewer for auroc and auprc of many rows, as in `score`.

    Raises:
        HfSynthError: the scores are of texts, of different rows, or lack their rows or the metric.
    """
    if any(s.values and set(s.values) <= set(TEXT_METRICS) for s in (a, b)):
        raise HfSynthError(
            f"scores of task {a.task!r} are of texts: only single_label and multi_label tasks can be compared"
        )
    if not all(s.labels or "sets" in s.row_values for s in (a, b)):
        raise HfSynthError("scores without their rows cannot be compared: write them with to_json(rows=True)")
    if not _same_rows(a, b):
        raise HfSynthError("the scores are of different rows: score both models on the same rows")
    if metric in PROBABILITY_METRICS and not all(metric in s.values and "said" in s.row_values for s in (a, b)):
        raise HfSynthError(
            f"cannot compare by {metric!r}: it is undefined here, or a model was scored from its labels alone; score "
            "both from probabilities"
        )
    known = [name for name in a.values if name in b.values]
    if metric not in known:
        raise HfSynthError(f"cannot compare by {metric!r}; choose one of {', '.join(known)}")
    both = [(_label_metric if s.labels else _set_metric)(s, metric) for s in (a, b)]
    n_groups = len(both[0].sums)
    if both[0].ranked:
        n_bootstrap = min(n_bootstrap, max(200, RANKED // both[0].ranked))
    drawn = [
        np.subtract(*(values_of(model, counts).get(metric, np.full(len(counts), np.nan)) for model in both))
        for counts in draws(n_groups, n_bootstrap, seed)
    ]
    ci95 = metric_interval(metric, np.concatenate(drawn), n_groups, difference=True)
    return Difference(metric, a.values[metric] - b.values[metric], ci95, a.n, mcnemar(_right(a), _right(b)))


def _same_rows(a: Scores, b: Scores) -> bool:
    if (a.labels, a.groups) != (b.labels, b.groups) or a.dataset.get("sha256") != b.dataset.get("sha256"):
        return False
    names = ("sets", "judged", "groups")
    return all(np.array_equal(a.row_values.get(n, ()), b.row_values.get(n, ())) for n in names)


def _label_metric(scores: Scores, metric: str) -> Prepared:
    """Prepare one metric of single labels for draws of groups."""
    k, true, codes = len(scores.confusion), np.array(scores.labels), np.array(scores.groups)
    guess = np.array(scores.predictions)
    often, graded = np.bincount(true, minlength=k) >= MIN_ROWS, metric in PATIENT_METRICS
    parts = label_parts(true, guess, k, codes, graded)
    if metric not in PROBABILITY_METRICS:
        return Prepared(parts, lambda s: label_metrics(s, k, often, graded, calibrated=False), no_ranks, 0, {})
    has, probs = np.eye(k, dtype=bool)[true], scores.row_values["said"]
    if metric != "ece":
        ranks = label_ranks(probs, has, np.ones_like(has), codes)
        return Prepared(parts, lambda s: {}, ranks, len(true) * (k if k > 2 else 1), {})
    sums = np.hstack([parts, gap_sums(true, probs, codes)])
    return Prepared(sums, lambda s: label_metrics(s, k, often, False, calibrated=True), no_ranks, 0, {})


def _set_metric(scores: Scores, metric: str) -> Prepared:
    """Prepare one metric of sets of labels for draws of groups."""
    probs, true, judged, codes = (np.asarray(scores.row_values[n]) for n in ("said", "sets", "judged", "groups"))
    true, judged = true > 0, judged > 0
    sums, some = set_sums(true, probs > 0.5, judged, codes), np.asarray(judged.any(0))
    if metric in PROBABILITY_METRICS:
        return Prepared(sums, lambda s: {}, label_ranks(probs, true, judged, codes), true.size, {})
    return Prepared(sums, lambda s: set_values(s, some), no_ranks, 0, {})


def _right(scores: Scores) -> Any:
    """Return a mask of the rows that a model has right; of sets in all judged labels, over rows that have some."""
    if scores.labels:
        return np.array(scores.labels) == np.array(scores.predictions)
    guess, true, judged = (np.asarray(scores.row_values[name]) > 0.5 for name in ("said", "sets", "judged"))
    return ((guess == true) | ~judged).all(1)[judged.any(1)]
