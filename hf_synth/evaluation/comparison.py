"""Two models on the same test rows: a paired difference with its interval and an exact test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.evaluation import Scores, _drawn_interval
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
from hf_synth.evaluation.scoring import RANKED, Judged, label_metrics, label_parts, values_of
from hf_synth.evaluation.statistics import mcnemar
from hf_synth.models.text2text import TEXT_METRICS


@dataclass(frozen=True)
class Difference:
    """Score of one model minus that of another on the same rows.

    Args:
        metric: which score.
        value: a's minus b's.
        ci95: 95% interval of the paired bootstrap over groups.
        n: number of rows.
        p_mcnemar: p-value of the exact McNemar test of who is right on which row (of sets: in all labels judged),
            whatever the metric; it takes rows for independent.
    """

    metric: str
    value: float
    ci95: tuple[float, float]
    n: int
    p_mcnemar: float


# --- comparison -----------------------------------------------------------------------------------------------------
def compare(a: Scores, b: Scores, metric: str = "macro_f1", *, n_bootstrap: int = 1000, seed: int = 0) -> Difference:
    """Compare two models on the same rows: the difference a - b with its paired bootstrap interval over groups.

    Args:
        metric: any that both have; auroc, auprc and ece where both were scored from probabilities.
        n_bootstrap: draws; fewer for auroc and auprc of many rows, as in `score`.

    Raises:
        HfSynthError: the scores are of texts, or not of the same rows, or lack what was said of them, or the metric.
    """
    if any(s.values and set(s.values) <= set(TEXT_METRICS) for s in (a, b)):
        raise HfSynthError(
            f"scores of task {a.task!r} are of texts: only those of single_label and multi_label tasks can be compared"
        )
    if not all(s.labels or "sets" in s.row_values for s in (a, b)):
        raise HfSynthError("scores without their rows cannot be compared: write them with to_json(rows=True)")
    if not _same_rows(a, b):
        raise HfSynthError("scores are compared on the same rows only, and these are of different rows")
    if metric in PROBABILITY_METRICS and not all(metric in s.values and "said" in s.row_values for s in (a, b)):
        raise HfSynthError(
            f"cannot compare by {metric!r}: it is not defined here, or a model was scored by its labels alone; score "
            "both from probabilities"
        )
    known = [name for name in a.values if name in b.values]
    if metric not in known:
        raise HfSynthError(f"cannot compare by {metric!r}; choose one of {', '.join(known)}")
    both = [(_of_labels if s.labels else _of_sets)(s, metric) for s in (a, b)]
    n_groups = len(both[0].sums)
    if both[0].ranked:
        n_bootstrap = min(n_bootstrap, max(200, RANKED // both[0].ranked))
    drawn = [
        np.subtract(*(values_of(one, counts).get(metric, np.full(len(counts), np.nan)) for one in both))
        for counts in draws(n_groups, n_bootstrap, seed)
    ]
    between = _drawn_interval(metric, np.concatenate(drawn), n_groups, difference=True)
    return Difference(metric, a.values[metric] - b.values[metric], between, a.n, mcnemar(_right(a), _right(b)))


def _same_rows(a: Scores, b: Scores) -> bool:
    if (a.labels, a.groups) != (b.labels, b.groups) or a.dataset.get("sha256") != b.dataset.get("sha256"):
        return False
    names = ("sets", "judged", "groups")
    return all(np.array_equal(a.row_values.get(n, ()), b.row_values.get(n, ())) for n in names)


def _of_labels(scores: Scores, metric: str) -> Judged:
    """Prepare one metric of single labels for draws of groups."""
    k, true, codes = len(scores.confusion), np.array(scores.labels), np.array(scores.groups)
    guess = np.array(scores.predictions)
    often, graded = np.bincount(true, minlength=k) >= MIN_ROWS, metric in PATIENT_METRICS
    parts = label_parts(true, guess, k, codes, graded)
    if metric not in PROBABILITY_METRICS:
        return Judged(parts, lambda s: label_metrics(s, k, often, graded, calibrated=False), lambda counts: {}, 0, {})
    has, said = np.eye(k, dtype=bool)[true], scores.row_values["said"]
    if metric != "ece":
        ranks = label_ranks(said, has, np.ones_like(has), codes)
        return Judged(parts, lambda s: {}, ranks, len(true) * (k if k > 2 else 1), {})
    sums = np.hstack([parts, gap_sums(true, said, codes)])
    return Judged(sums, lambda s: label_metrics(s, k, often, False, calibrated=True), lambda counts: {}, 0, {})


def _of_sets(scores: Scores, metric: str) -> Judged:
    """Prepare one metric of sets of labels for draws of groups."""
    said, true, judged, codes = (np.asarray(scores.row_values[n]) for n in ("said", "sets", "judged", "groups"))
    true, judged = true > 0, judged > 0
    sums, seen = set_sums(true, said > 0.5, judged, codes), np.asarray(judged.any(0))
    if metric in PROBABILITY_METRICS:
        return Judged(sums, lambda s: {}, label_ranks(said, true, judged, codes), true.size, {})
    return Judged(sums, lambda s: set_values(s, seen), lambda counts: {}, 0, {})


def _right(scores: Scores) -> Any:
    """Tell in which rows a model is right; of sets in all labels that were judged, and only rows where some were."""
    if scores.labels:
        return np.array(scores.labels) == np.array(scores.predictions)
    said, true, judged = (np.asarray(scores.row_values[name]) > 0.5 for name in ("said", "sets", "judged"))
    return ((said == true) | ~judged).all(1)[judged.any(1)]
